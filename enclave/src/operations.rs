//! Long-running operations of this boot, in the shape of AIP-151.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use arca_proto::v1::{Operation, OperationError, operation::Result as Outcome};
use tokio::sync::watch;
use tonic::Code;

use crate::error::Error;

/// Operations remembered; the oldest are forgotten first. Their results live on as resources.
const REMEMBERED: usize = 1024;

/// Operations by name. The name follows from the request, so the same request finds its operation.
#[derive(Default)]
pub struct Operations(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_name: HashMap<String, ([u8; 32], watch::Receiver<Operation>)>,
    order: VecDeque<String>,
}

/// The end of an operation that reports its outcome. Dropping it unfinished reports an interruption.
pub struct Running(watch::Sender<Operation>);

/// What [`Operations::begin`] found.
pub enum Begun {
    /// A new operation.
    New(Running, Operation),
    /// The one that the same request began before.
    Known(Operation),
}

impl Operations {
    /// Begins the operation `name` for a request with this body, unless it is there already. One that failed is
    /// begun anew.
    ///
    /// # Errors
    /// [`Error::Reject`] when the request's id was used with another body.
    pub fn begin(&self, name: &str, body: [u8; 32]) -> Result<Begun, Error> {
        let mut table = self.table();
        if let Some((known_body, known)) = table.by_name.get(name) {
            if *known_body != body {
                return Err(other_body());
            }
            let current = known.borrow().clone();
            if !matches!(current.result, Some(Outcome::Error(_))) {
                return Ok(Begun::Known(current));
            }
        }
        let operation = Operation {
            name: name.to_owned(),
            ..Operation::default()
        };
        let (sender, receiver) = watch::channel(operation.clone());
        if table
            .by_name
            .insert(name.to_owned(), (body, receiver))
            .is_none()
        {
            table.order.push_back(name.to_owned());
        }
        if table.order.len() > REMEMBERED
            && let Some(oldest) = table.order.pop_front()
        {
            table.by_name.remove(&oldest);
        }
        Ok(Begun::New(Running(sender), operation))
    }

    /// An operation of this boot.
    pub fn get(&self, name: &str) -> Option<watch::Receiver<Operation>> {
        self.table()
            .by_name
            .get(name)
            .map(|(_, operation)| operation.clone())
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Running {
    /// Reports the outcome to everybody who waits.
    pub fn finish(self, outcome: Result<prost_types::Any, Error>) {
        self.set(match outcome {
            Ok(response) => Outcome::Response(response),
            Err(error) => Outcome::Error(OperationError {
                code: error.code() as i32,
                message: error.to_string(),
                reason: error.reason().to_owned(),
                culprits: error.culprits().to_vec(),
            }),
        });
    }

    fn set(&self, result: Outcome) {
        self.0.send_modify(|operation| {
            operation.done = true;
            operation.result = Some(result);
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.0.borrow().done {
            self.set(Outcome::Error(OperationError {
                code: Code::Internal as i32,
                message: "the operation was interrupted".to_owned(),
                reason: "INTERRUPTED".to_owned(),
                culprits: Vec::new(),
            }));
        }
    }
}

/// The error for an idempotency key that was used for something else.
pub fn other_body() -> Error {
    Error::reject(
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
        "request_id: used before with another body; take a new one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_finds_its_operation_and_another_body_is_refused() {
        let operations = Operations::default();
        let Ok(Begun::New(running, begun)) = operations.begin("operations/a", [1; 32]) else {
            panic!("the first request begins an operation");
        };
        match operations.begin("operations/a", [1; 32]) {
            Ok(Begun::Known(known)) => assert_eq!(known, begun),
            _ => panic!("the same request finds its operation"),
        }
        assert!(operations.begin("operations/a", [2; 32]).is_err());
        running.finish(Ok(prost_types::Any::default()));
        let seen = operations.get("operations/a").unwrap();
        assert!(seen.borrow().done);
    }

    #[test]
    fn a_dropped_operation_reports_that_it_was_interrupted_and_may_be_tried_again() {
        let operations = Operations::default();
        drop(operations.begin("operations/a", [1; 32]));
        let seen = operations
            .get("operations/a")
            .map(|operation| operation.borrow().clone());
        let reason = match seen.and_then(|operation| operation.result) {
            Some(Outcome::Error(error)) => error.reason,
            other => panic!("no error: {other:?}"),
        };
        assert_eq!(reason, "INTERRUPTED");
        assert!(matches!(
            operations.begin("operations/a", [1; 32]),
            Ok(Begun::New(..))
        ));
    }

    #[test]
    fn the_oldest_operations_are_forgotten() {
        let operations = Operations::default();
        for index in 0..=REMEMBERED {
            let _ = operations.begin(&format!("operations/{index}"), [1; 32]);
        }
        assert!(operations.get("operations/0").is_none());
        assert!(operations.get("operations/1").is_some());
    }
}
