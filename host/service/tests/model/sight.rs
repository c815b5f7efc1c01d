//! What is compared after every step: all that anybody can see of an organisation, and what is new since the last look.

use std::fmt::Write;

use crate::plain::{Face, Model};
use crate::steps::{MINUTE, Millis};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sight {
    /// What the caller heard; empty if nobody did.
    pub(crate) answer: String,
    /// Every session that was ever made; none if it is gone.
    pub(crate) faces: Vec<Option<Face>>,
    /// Whether the credentials of a link are kept for it.
    pub(crate) links: Vec<bool>,
    /// Which run of it the engine has.
    pub(crate) alive: Vec<Option<u64>>,
    /// What customers are told of each session.
    pub(crate) news: Vec<Vec<String>>,
    /// What they are told of no session.
    pub(crate) house_news: Vec<String>,
    /// New entries, sorted.
    pub(crate) audit: Vec<String>,
    /// New decisions, sorted.
    pub(crate) decisions: Vec<String>,
    /// When something happens by itself.
    pub(crate) wakes: Option<Millis>,
    /// Which sessions are listed.
    pub(crate) listed: Vec<usize>,
    /// How many sessions are counted for the quota.
    pub(crate) counted: usize,
    /// How many deletes were done in the last minute.
    pub(crate) deletes: usize,
    /// What should never be.
    pub(crate) oddities: Vec<String>,
}

impl Sight {
    /// What the model has to say, which it then has said.
    pub(crate) fn of_model(model: &mut Model, answer: String) -> Self {
        let mut sight = Self { answer, wakes: model.wakes(), counted: model.alive(), ..Self::default() };
        let now = model.now;
        sight.deletes = model.deleted.iter().filter(|at| **at + MINUTE > now).count();
        for index in 0..model.sessions.len() {
            let is_gone = model.is_gone(index);
            let session = &mut model.sessions[index];
            sight.faces.push((!is_gone).then(|| session.face.clone()));
            sight.links.push(session.phone.linked);
            sight.alive.push(session.phone.alive());
            for (unlink, at) in session.logged_out.drain(..) {
                model.audit.push(format!("the gateway session.logout {index} unlinked {unlink} at {at}"));
            }
            sight.news.push(session.news.drain(..).map(|news| news.text).collect());
            if !is_gone {
                sight.listed.push(index);
            }
        }
        sight.house_news = model.house_news.drain(..).map(|news| news.text).collect();
        sight.audit = std::mem::take(&mut model.audit);
        sight.decisions = std::mem::take(&mut model.decisions);
        sight.audit.sort();
        sight.decisions.sort();
        sight
    }

    /// Where two differ, in words.
    pub(crate) fn differences(&self, expected: &Self) -> String {
        let mut told = String::new();
        for ((what, seen), (_, expected)) in self.rows().into_iter().zip(expected.rows()) {
            let only_in = |those: &[String], others: &[String]| {
                let only: Vec<_> = those.iter().filter(|row| !others.contains(row)).cloned().collect();
                only.join("\n                ")
            };
            if seen != expected {
                let (more, less) = (only_in(&seen, &expected), only_in(&expected, &seen));
                writeln!(told, "    {what}\n      should be {less}\n      but is    {more}").unwrap();
            }
        }
        told
    }

    fn rows(&self) -> Vec<(String, Vec<String>)> {
        let one = |what: &str, text: String| (what.to_owned(), vec![text]);
        let mut rows = vec![
            one("the answer", self.answer.clone()),
            ("news of no session".to_owned(), self.house_news.clone()),
            ("the audit".to_owned(), self.audit.clone()),
            ("the decisions".to_owned(), self.decisions.clone()),
            one("when something happens by itself", format!("{:?}", self.wakes)),
            one("the list", format!("{:?}", self.listed)),
            one("sessions that count", self.counted.to_string()),
            one("deletes of the last minute", self.deletes.to_string()),
            ("what should never be".to_owned(), self.oddities.clone()),
            one("how many sessions there ever were", self.faces.len().to_string()),
        ];
        for (index, face) in self.faces.iter().enumerate() {
            rows.push(one(&format!("session {index}"), format!("{face:?}")));
            rows.push(one(&format!("credentials of session {index}"), self.links[index].to_string()));
            rows.push(one(&format!("the engine's run of session {index}"), format!("{:?}", self.alive[index])));
            rows.push((format!("news of session {index}"), self.news[index].clone()));
        }
        rows
    }
}
