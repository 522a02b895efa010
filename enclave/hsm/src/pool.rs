//! Calls to the module: a few threads with a session each, a deadline for every call, and a new start when the token
//! is lost.
//!
//! A module may block for as long as it likes; nobody who awaits waits longer than the deadline. A call that fails is
//! tried in a new session, then once more after C_Finalize and C_Initialize, which some modules need to see a token
//! again. After that the token counts as lost: calls fail at once, and every now and then one of them looks for it.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    error::{Error as CallError, RvError},
    session::Session,
};

use crate::{
    HsmError,
    keys::{self, Handles, Known, Names},
    module::{Module, brief},
};

/// Calls that may wait for a thread.
const WAITING: usize = 256;
/// Shortest and longest pause before a lost token is looked for again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A session that is logged in, and the keys as it knows them.
pub(crate) struct Open {
    pub(crate) session: Session,
    pub(crate) keys: Handles,
    pub(crate) module: Arc<Module>,
    slot: cryptoki::slot::Slot,
    generation: u64,
}

impl Open {
    /// Another session with the same login, for one look at whether the token is well.
    pub(crate) fn aside<T>(
        &self,
        look: impl FnOnce(&Session) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let session = self.module.open_to_read(self.slot)?;
        let seen = look(&session);
        let _ = session.close();
        seen
    }
}

/// Why an attempt failed.
pub(crate) enum Failure {
    /// The module: another session may do better.
    Call(CallError),
    /// Nothing that another attempt would mend.
    Final(HsmError),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// The threads.
pub(crate) struct Pool {
    jobs: SyncSender<Job>,
    timeout: Duration,
    known: Known,
}

type Attempt = dyn FnMut(&Open) -> Result<(), Failure> + Send;

struct Job {
    operation: &'static str,
    deadline: Instant,
    /// Answers by itself when it succeeds.
    attempt: Box<Attempt>,
    fail: Box<dyn FnOnce(HsmError) + Send>,
}

impl Pool {
    /// Opens the first session, in which both keys must be and be in order, then starts the threads.
    pub(crate) fn start(
        module: Arc<Module>,
        names: Names,
        threads: usize,
        timeout: Duration,
    ) -> Result<Self, HsmError> {
        let shared = Arc::new(Shared {
            module,
            names,
            known: Mutex::new(None),
            timeout,
            gate: Mutex::new(Gate::default()),
            left: Condvar::new(),
        });
        let (jobs, waiting) = mpsc::sync_channel(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        // The first one opens its session at once, by its own thread, so that a module that hangs cannot hang this.
        let (tell, told) = mpsc::sync_channel(1);
        for number in 0..threads.max(1) {
            let worker = Worker {
                shared: Arc::clone(&shared),
                open: None,
            };
            let waiting = Arc::clone(&waiting);
            let tell = (number == 0).then(|| tell.clone());
            thread::Builder::new()
                .name(format!("pkcs11-{number}"))
                .spawn(move || worker.work(&waiting, tell))
                .map_err(|error| HsmError::Call {
                    operation: "starting a thread",
                    cause: error.to_string(),
                })?;
        }
        let known = told.recv_timeout(timeout).map_err(|_| HsmError::Timeout {
            operation: "opening a session and finding the keys",
            after: timeout,
        })??;
        Ok(Self {
            jobs,
            timeout,
            known,
        })
    }

    /// Which keys these are.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// Runs `work` on one of the threads and waits for it, until the deadline.
    ///
    /// # Errors
    /// What `work` failed with last; [`HsmError::Timeout`]; [`HsmError::Busy`]; [`HsmError::Lost`].
    pub(crate) fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Fn(&Open) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, HsmError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let failing = answer.clone();
        let job = Job {
            operation,
            deadline: deadline(self.timeout),
            attempt: Box::new(move |open| {
                let result = work(open)?;
                // Nobody listens any more when the deadline has passed.
                let _ = answer.try_send(Ok(result));
                Ok(())
            }),
            fail: Box::new(move |error| {
                let _ = failing.try_send(Err(error));
            }),
        };
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => HsmError::Busy { operation },
            TrySendError::Disconnected(_) => HsmError::Bug("the PKCS#11 threads have ended"),
        })?;
        answered
            .recv_timeout(self.timeout)
            .unwrap_or(Err(HsmError::Timeout {
                operation,
                after: self.timeout,
            }))
    }
}

fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now)
}

/// What the threads have in common.
struct Shared {
    module: Arc<Module>,
    names: Names,
    known: Mutex<Option<Known>>,
    timeout: Duration,
    gate: Mutex<Gate>,
    left: Condvar,
}

/// Who is inside the module: C_Finalize must find nobody there.
#[derive(Default)]
struct Gate {
    inside: usize,
    starting_over: bool,
    /// Counts C_Initialize: sessions of an earlier one do not exist any more.
    generation: u64,
    lost: Option<Lost>,
}

#[derive(Clone)]
struct Lost {
    cause: String,
    pause: Duration,
    until: Instant,
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `free`, at most for the time that one call may take.
    fn wait(&self, free: impl Fn(&Gate) -> bool) -> Option<MutexGuard<'_, Gate>> {
        let (gate, waited) = self
            .left
            .wait_timeout_while(self.gate(), self.timeout, |gate| !free(gate))
            .unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out()).then_some(gate)
    }

    /// Goes into the module. The generation is that of everything done there.
    fn enter(&self) -> Result<Inside<'_>, HsmError> {
        let Some(mut gate) = self.wait(|gate| !gate.starting_over) else {
            return Err(HsmError::Timeout {
                operation: "initialising the module again",
                after: self.timeout,
            });
        };
        gate.inside = gate.inside.saturating_add(1);
        Ok(Inside {
            shared: self,
            generation: gate.generation,
        })
    }

    /// Initialises the module again, unless somebody has since `generation`.
    fn start_over(&self, generation: u64) -> Result<(), HsmError> {
        let Some(mut gate) = self.wait(|gate| !gate.starting_over && gate.inside == 0) else {
            return Err(HsmError::Timeout {
                operation: "initialising the module again, for which a call under way has to end: if it hangs, restart \
                            this program",
                after: self.timeout,
            });
        };
        if gate.generation != generation {
            return Ok(());
        }
        gate.starting_over = true;
        drop(gate);
        let outcome = self.module.start_over();
        let mut gate = self.gate();
        gate.starting_over = false;
        gate.generation = gate.generation.wrapping_add(1);
        drop(gate);
        self.left.notify_all();
        outcome
    }

    /// Refuses while a lost token is not worth another look.
    fn patience(&self) -> Result<(), HsmError> {
        if let Some(refused) = self.module.pin_refused() {
            return Err(refused);
        }
        match &self.gate().lost {
            Some(lost) if Instant::now() < lost.until => Err(HsmError::Lost {
                cause: lost.cause.clone(),
                again_in: lost.until.saturating_duration_since(Instant::now()),
            }),
            _ => Ok(()),
        }
    }

    fn lose(&self, error: &HsmError) {
        let mut gate = self.gate();
        let pause = gate
            .lost
            .as_ref()
            .map_or(PAUSES.0, |lost| lost.pause.saturating_mul(2).min(PAUSES.1));
        if gate.lost.is_none() {
            tracing::error!("the token is lost: {error}");
        }
        gate.lost = Some(Lost {
            cause: error.to_string(),
            pause,
            until: deadline(pause),
        });
    }

    fn found(&self) {
        if self.gate().lost.take().is_some() {
            tracing::info!("the token is back");
        }
    }

    fn open(self: &Arc<Self>) -> Result<Open, HsmError> {
        let inside = self.enter()?;
        let (session, slot) = self.module.open(false)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match keys::find(&session, &self.names, known.as_ref()) {
            Ok((found, keys)) => {
                *known = Some(found);
                Ok(Open {
                    session,
                    keys,
                    module: Arc::clone(&self.module),
                    slot,
                    generation: inside.generation,
                })
            }
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }
}

/// While this lives, nobody finalises the module.
struct Inside<'a> {
    shared: &'a Shared,
    generation: u64,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut gate = self.shared.gate();
        gate.inside = gate.inside.saturating_sub(1);
        drop(gate);
        self.shared.left.notify_all();
    }
}

struct Worker {
    shared: Arc<Shared>,
    open: Option<Open>,
}

type Told = SyncSender<Result<Known, HsmError>>;

impl Worker {
    fn work(mut self, waiting: &Mutex<Receiver<Job>>, tell: Option<Told>) {
        if let Some(tell) = tell {
            let opened = self.open_once();
            let known = opened.and_then(|()| {
                let known = self.shared.known.lock();
                known
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
                    .ok_or(HsmError::Bug("a session without keys"))
            });
            let failed = known.is_err();
            let _ = tell.try_send(known);
            if failed {
                return;
            }
        }
        loop {
            let job = waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            match job {
                Ok(job) => self.run(job),
                Err(_) => return,
            }
        }
    }

    fn run(&mut self, mut job: Job) {
        // In this session, in a new one, after a new start.
        for attempt in 0..3 {
            if Instant::now() >= job.deadline {
                return (job.fail)(HsmError::Timeout {
                    operation: job.operation,
                    after: self.shared.timeout,
                });
            }
            if attempt == 2
                && let Err(error) = self.start_over()
            {
                self.shared.lose(&error);
                return (job.fail)(error);
            }
            match self.attempt(&mut job) {
                Ok(()) => return self.shared.found(),
                Err(Failure::Final(error)) => {
                    // What it did may have left an operation open in the session.
                    self.close();
                    return (job.fail)(error);
                }
                Err(Failure::Call(error)) => {
                    self.close();
                    let lost = HsmError::Call {
                        operation: job.operation,
                        cause: brief(&error),
                    };
                    if is_an_answer(&error) {
                        return (job.fail)(lost);
                    }
                    tracing::warn!("{lost}; trying again");
                    if attempt == 2 {
                        self.shared.lose(&lost);
                        return (job.fail)(lost);
                    }
                }
            }
        }
    }

    fn attempt(&mut self, job: &mut Job) -> Result<(), Failure> {
        self.ensure_open().map_err(Failure::Final)?;
        let inside = self.shared.enter().map_err(Failure::Final)?;
        match &self.open {
            Some(open) if open.generation == inside.generation => (job.attempt)(open),
            // Somebody initialised the module again just now.
            _ => Err(Failure::Call(CallError::Pkcs11(
                RvError::SessionClosed,
                cryptoki::context::Function::OpenSession,
            ))),
        }
    }

    /// A session of the present generation: the one there is, a new one, or one after a new start.
    fn ensure_open(&mut self) -> Result<(), HsmError> {
        let generation = self.shared.gate().generation;
        if let Some(open) = &self.open {
            if open.generation == generation {
                return Ok(());
            }
            self.open = None;
        }
        self.shared.patience()?;
        let first = match self.open_once() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if is_settled(&first) {
            return Err(first);
        }
        let second = self
            .shared
            .start_over(generation)
            .and_then(|()| self.open_once());
        if let Err(error) = &second
            && !is_settled(error)
        {
            self.shared.lose(error);
        }
        second
    }

    fn open_once(&mut self) -> Result<(), HsmError> {
        self.open = Some(self.shared.open()?);
        Ok(())
    }

    fn start_over(&mut self) -> Result<(), HsmError> {
        self.open = None;
        let generation = self.shared.gate().generation;
        self.shared.start_over(generation)
    }

    /// Closes the session, if it is one of this initialisation.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        if let Ok(inside) = self.shared.enter()
            && inside.generation == open.generation
        {
            let _ = open.session.close();
        }
    }
}

/// Errors that finding the token again does not mend: somebody has to look after PIN or keys.
fn is_settled(error: &HsmError) -> bool {
    matches!(
        error,
        HsmError::Pin { .. }
            | HsmError::Attribute { .. }
            | HsmError::ManyObjects { .. }
            | HsmError::ManyTokens { .. }
            | HsmError::WrongResult { .. }
    )
}

/// Codes by which a module that is well refuses what it was asked for.
fn is_an_answer(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Pkcs11(
            RvError::MechanismInvalid
                | RvError::MechanismParamInvalid
                | RvError::FunctionNotSupported
                | RvError::KeyFunctionNotPermitted
                | RvError::KeyTypeInconsistent
                | RvError::KeySizeRange
                | RvError::RandomNoRng,
            _
        ) | CallError::NullFunctionPointer
            | CallError::NotSupported
    )
}
