//! Which build this is.

/// The version of the sources.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit they are, or `unknown` where the build had no repository and no BUILD_COMMIT (`build.rs`).
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// Both, as `uproar --version` shows them.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")");
