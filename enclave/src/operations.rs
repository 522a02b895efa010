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

/// Operations by name, and which request began them.
#[derive(Default)]
pub struct Operations(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_name: HashMap<String, watch::Receiver<Operation>>,
    by_request: HashMap<String, ([u8; 32], String)>,
    order: VecDeque<(String, String)>,
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
    /// Begins the operation `name` for a request, unless that request began one already.
    ///
    /// # Errors
    /// [`Error::Reject`] when the request's id was used with another body.
    pub fn begin(&self, request: &str, body: [u8; 32], name: &str) -> Result<Begun, Error> {
        let mut table = self.table();
        if let Some((known_body, known)) = table.by_request.get(request) {
            if *known_body != body {
                return Err(other_body());
            }
            let current = table
                .by_name
                .get(known)
                .map(|operation| operation.borrow().clone());
            // One that failed may be tried again under the same id.
            if let Some(current) = current
                && !matches!(current.result, Some(Outcome::Error(_)))
            {
                return Ok(Begun::Known(current));
            }
        }
        let operation = Operation {
            name: name.to_owned(),
            ..Operation::default()
        };
        let (sender, receiver) = watch::channel(operation.clone());
        table.by_name.insert(name.to_owned(), receiver);
        table
            .by_request
            .insert(request.to_owned(), (body, name.to_owned()));
        table.order.push_back((name.to_owned(), request.to_owned()));
        if table.order.len() > REMEMBERED
            && let Some((name, request)) = table.order.pop_front()
        {
            table.by_name.remove(&name);
            if table
                .by_request
                .get(&request)
                .is_some_and(|(_, known)| *known == name)
            {
                table.by_request.remove(&request);
            }
        }
        Ok(Begun::New(Running(sender), operation))
    }

    /// An operation of this boot.
    pub fn get(&self, name: &str) -> Option<watch::Receiver<Operation>> {
        self.table().by_name.get(name).cloned()
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

    fn begin(operations: &Operations, request: &str, body: u8, name: &str) -> Result<Begun, Error> {
        operations.begin(request, [body; 32], name)
    }

    #[test]
    fn the_same_request_finds_its_operation_and_another_body_is_refused() {
        let operations = Operations::default();
        let Ok(Begun::New(running, _)) = begin(&operations, "r", 1, "operations/a") else {
            panic!("the first request begins an operation");
        };
        match begin(&operations, "r", 1, "operations/b") {
            Ok(Begun::Known(known)) => assert_eq!(known.name, "operations/a"),
            _ => panic!("the same request finds its operation"),
        }
        assert!(begin(&operations, "r", 2, "operations/c").is_err());
        running.finish(Ok(prost_types::Any::default()));
        assert!(
            operations
                .get("operations/a")
                .is_some_and(|o| o.borrow().done)
        );
    }

    #[test]
    fn a_dropped_operation_reports_that_it_was_interrupted_and_may_be_tried_again() {
        let operations = Operations::default();
        drop(begin(&operations, "r", 1, "operations/a"));
        let seen = operations
            .get("operations/a")
            .map(|operation| operation.borrow().clone());
        assert!(
            matches!(seen.and_then(|o| o.result), Some(Outcome::Error(e)) if e.reason == "INTERRUPTED")
        );
        assert!(matches!(
            begin(&operations, "r", 1, "operations/b"),
            Ok(Begun::New(..))
        ));
    }

    #[test]
    fn the_oldest_operations_are_forgotten() {
        let operations = Operations::default();
        for index in 0..=REMEMBERED {
            let _ = begin(
                &operations,
                &format!("r{index}"),
                1,
                &format!("operations/{index}"),
            );
        }
        assert!(operations.get("operations/0").is_none());
        assert!(operations.get("operations/1").is_some());
    }
}
