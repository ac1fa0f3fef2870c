-- What triggers gave a random id or the time of the clock gets one that every machine agrees on.
UPDATE custom_roles AS role
SET id = md5('role ' || organization.id || ' ' || role.name)::uuid,
    created_at = organization.created_at,
    updated_at = organization.created_at
FROM organizations AS organization
WHERE role.organization_id = organization.id
    AND organization.id::text LIKE 'c0de0000-0001-4000-8000-%'
    AND role.is_system
    AND role.created_at <> organization.created_at;

UPDATE user_status_changes
SET id = md5('status ' || user_id || ' ' || changed_at::text)::uuid
WHERE user_id::text LIKE 'c0de0000-0002-4000-8000-%';

UPDATE user_deleted
SET id = md5('deleted ' || user_id)::uuid
WHERE user_id::text LIKE 'c0de0000-0002-4000-8000-%';
