//! What happens, for machines: a JSON object per line on standard error, if `CODERDB_LOG=json` asks for it.

use std::{env, fmt};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt as _},
};

use super::{
    error::{CliError, USAGE},
    note::{log_as_json, write},
};

/// Begins to log as the environment says.
pub(super) fn start() -> Result<(), CliError> {
    match env::var("CODERDB_LOG").as_deref() {
        Err(_) | Ok("") => return Ok(()),
        Ok("json") => {}
        Ok(_) => return Err(CliError::new(USAGE, "CODERDB_LOG is neither empty nor json")),
    }
    log_as_json();
    let own = Targets::new().with_target("coderdb", Level::INFO);
    // Only the first one counts, and this is it.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(Json.with_filter(own)));
    Ok(())
}

/// The name of an event is stable; its message is not.
struct Json;

impl<S: Subscriber> Layer<S> for Json {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        fields.0.insert("event".to_owned(), event.metadata().name().into());
        fields.0.insert("level".to_owned(), event.metadata().level().as_str().into());
        write(Value::Object(fields.0));
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}
