//! Payloads decoded into intents, and what may be signed; pure.

#![forbid(unsafe_code)]
