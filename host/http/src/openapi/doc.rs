//! What is said of a route besides what its row says: parameters, bodies and answers.

use schemars::JsonSchema;
use serde_json::Value;

use super::schema::{SchemaOf, of};

/// The documentation of a route.
#[derive(Clone, Default)]
pub(crate) struct Doc {
    /// What goes beyond the operation's summary.
    pub(super) description: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<Answer>,
    /// The statuses of errors besides those that every route has.
    pub(super) errors: Vec<u16>,
    /// The field of an answer that names what was made, for links to what can be done with it.
    pub(super) made: Option<&'static str>,
}

/// A parameter of the query or a header.
#[derive(Clone)]
pub(crate) struct Parameter {
    pub(super) place: &'static str,
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) schema: Value,
}

/// A body that is received.
#[derive(Clone)]
pub(super) struct Body {
    pub(super) required: bool,
    pub(super) contents: Vec<(&'static str, SchemaOf)>,
}

/// An answer that is no error.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) description: &'static str,
    /// Its forms by their media types; an answer without a body has none.
    pub(super) contents: Vec<(&'static str, SchemaOf)>,
}

/// The media type of almost everything.
pub(crate) const JSON: &str = "application/json";

impl Doc {
    /// A route that answers with a status and a body of this type.
    pub(crate) fn answers<T: JsonSchema>(status: u16, description: &'static str) -> Self {
        Self::default().also::<T>(status, description)
    }

    /// A route that answers with a status and no body.
    pub(crate) fn is_done(status: u16, description: &'static str) -> Self {
        Self::default().or_done(status, description)
    }

    /// It can also answer so.
    pub(crate) fn also<T: JsonSchema>(self, status: u16, description: &'static str) -> Self {
        self.content(status, description, JSON, of::<T>)
    }

    /// It can also answer so, without a body.
    pub(crate) fn or_done(mut self, status: u16, description: &'static str) -> Self {
        self.answers.push(Answer { status, description, contents: Vec::new() });
        self
    }

    /// It can also answer in this form.
    pub(crate) fn content(
        mut self,
        status: u16,
        description: &'static str,
        media_type: &'static str,
        schema: SchemaOf,
    ) -> Self {
        match self.answers.iter_mut().find(|answer| answer.status == status) {
            Some(answer) => answer.contents.push((media_type, schema)),
            None => self.answers.push(Answer { status, description, contents: vec![(media_type, schema)] }),
        }
        self
    }

    /// It takes a body of this type.
    pub(crate) fn takes<T: JsonSchema>(self) -> Self {
        self.takes_content(true, JSON, of::<T>)
    }

    /// It takes a body of this type, which may be left out.
    pub(crate) fn may_take<T: JsonSchema>(self) -> Self {
        self.takes_content(false, JSON, of::<T>)
    }

    /// It takes a body in this form.
    pub(crate) fn takes_content(mut self, required: bool, media_type: &'static str, schema: SchemaOf) -> Self {
        let body = self.body.get_or_insert_with(|| Body { required, contents: Vec::new() });
        body.contents.push((media_type, schema));
        self
    }

    /// It takes a query parameter.
    pub(crate) fn query(mut self, name: &'static str, description: &'static str, schema: Value) -> Self {
        self.parameters.push(Parameter { place: "query", name, description, schema });
        self
    }

    /// It takes a header.
    pub(crate) fn header(mut self, name: &'static str, description: &'static str, schema: Value) -> Self {
        self.parameters.push(Parameter { place: "header", name, description, schema });
        self
    }

    /// It can fail with these statuses besides those that every route has.
    pub(crate) fn fails(mut self, statuses: &[u16]) -> Self {
        self.errors.extend_from_slice(statuses);
        self
    }

    /// It makes something, whose id is in this field of its answer.
    pub(crate) fn makes(mut self, field: &'static str) -> Self {
        self.made = Some(field);
        self
    }

    /// What there is to say beyond the operation's summary.
    pub(crate) fn says(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }
}
