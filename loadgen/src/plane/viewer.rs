//! One simulated viewer: a few bytes, because there are tens of thousands.

/// Where a viewer's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No socket.
    Away,
    /// The kernel is connecting.
    Connecting,
    /// The upgrade request is out.
    Upgrading,
    /// The 101 came; the welcome has not.
    Welcoming,
    /// Watching.
    Live,
    /// The slot is being closed.
    Closing,
}

/// What a viewer does besides watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Watches.
    Watcher,
    /// Watches and posts.
    Publisher,
    /// Reads slowly or never.
    Slow,
}

/// What happens after the slot is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Stay away, as planned.
    Stay,
    /// Connect again from the newest state.
    Return,
    /// Connect again and ask for everything since.
    Resume,
    /// Stay away; it was not planned.
    Fail,
}

/// One viewer.
#[derive(Debug)]
pub(super) struct Viewer {
    /// The next offset due; 0: not known yet.
    pub(super) expected: u64,
    /// The head when it joined: up to here comments are history, late because it was not there.
    pub(super) joined_at: u64,
    /// The start of a frame whose end has not come.
    #[expect(clippy::box_collection, reason = "rare, and 8 bytes a viewer instead of 24")]
    pub(super) carry: Option<Box<Vec<u8>>>,
    /// Which event it watches.
    pub(super) event: u32,
    /// Its number in the whole run.
    pub(super) number: u32,
    /// When its connect began, in tenths of a millisecond since the run's start.
    pub(super) begun_100us: u32,
    /// Tells completions of this connection from those of an earlier one.
    pub(super) generation: u16,
    pub(super) phase: Phase,
    pub(super) role: Role,
    pub(super) next: Next,
    /// Failed connects in a row.
    pub(super) attempts: u8,
    /// Whether the multishot read (of slow viewers: the poll) is armed.
    pub(super) is_watched: bool,
    /// Whether this connection asked for everything since `expected`.
    pub(super) is_resuming: bool,
}

impl Viewer {
    /// Whether it is not live and will be again.
    pub(super) fn is_coming_back(&self) -> bool {
        match self.phase {
            Phase::Connecting | Phase::Upgrading | Phase::Welcoming => true,
            Phase::Away | Phase::Closing => matches!(self.next, Next::Return | Next::Resume),
            Phase::Live => false,
        }
    }

    pub(super) fn new(number: u32, event: u32, role: Role) -> Self {
        Self {
            expected: 0,
            joined_at: 0,
            carry: None,
            event,
            number,
            begun_100us: 0,
            generation: 0,
            phase: Phase::Away,
            role,
            next: Next::Stay,
            attempts: 0,
            is_watched: false,
            is_resuming: false,
        }
    }
}

const _: () = {
    // Fifty thousand of these are 2.4 MB.
    assert!(size_of::<Viewer>() <= 48);
};
