-- coderdb: no-transaction
CREATE INDEX CONCURRENTLY invoices_by_user ON invoices (user_id, created_at);
