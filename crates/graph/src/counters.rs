//! Arithmetic on [`Counters`].
//!
//! Sums may pass below zero for a moment while a connection's counts move from one edge to another and its
//! half-edge's totals follow a report later: they wrap, and whoever shows them calls [`Counters::shown`].

use crate::input::Counters;

impl Counters {
    /// Attempts that ended with an error.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.refused
            .wrapping_add(self.timed_out)
            .wrapping_add(self.unreachable)
            .wrapping_add(self.reset)
    }

    /// Figure by figure.
    pub(crate) fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let Self {
            opened,
            adopted,
            active,
            refused,
            timed_out,
            unreachable,
            reset,
            aborted,
            bytes_sent,
            bytes_received,
            connect_us,
            rtt_us,
            rtt_samples,
            retransmits,
            lost,
        } = self;
        Self {
            opened: f(opened, other.opened),
            adopted: f(adopted, other.adopted),
            active: f(active, other.active),
            refused: f(refused, other.refused),
            timed_out: f(timed_out, other.timed_out),
            unreachable: f(unreachable, other.unreachable),
            reset: f(reset, other.reset),
            aborted: f(aborted, other.aborted),
            bytes_sent: f(bytes_sent, other.bytes_sent),
            bytes_received: f(bytes_received, other.bytes_received),
            connect_us: f(connect_us, other.connect_us),
            rtt_us: f(rtt_us, other.rtt_us),
            rtt_samples: f(rtt_samples, other.rtt_samples),
            retransmits: f(retransmits, other.retransmits),
            lost: f(lost, other.lost),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        *self = self.zip(*other, u64::wrapping_add);
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        *self = self.zip(*other, u64::wrapping_sub);
    }

    /// Below zero reads as zero.
    pub(crate) fn shown(self) -> Self {
        self.zip(
            Self::default(),
            |figure, _| if figure > i64::MAX as u64 { 0 } else { figure },
        )
    }

    pub(crate) fn larger(self, other: Self) -> Self {
        self.zip(other, u64::max)
    }

    /// What `self` has more than `other`, nowhere less than nothing.
    pub(crate) fn excess(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    pub(crate) fn times(self, factor: u64) -> Self {
        self.zip(Self::default(), |figure, _| figure.wrapping_mul(factor))
    }

    /// As the other side of the connection would say it.
    pub(crate) fn flipped(self) -> Self {
        Self {
            bytes_sent: self.bytes_received,
            bytes_received: self.bytes_sent,
            ..self
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Splits into what connections did and what attempts without a connection did.
    pub(crate) fn split_attempts(self) -> (Self, Self) {
        let attempts = Self {
            refused: self.refused,
            timed_out: self.timed_out,
            unreachable: self.unreachable,
            reset: self.reset,
            aborted: self.aborted,
            ..Self::default()
        };
        let mut rest = self;
        rest.subtract(&attempts);
        (rest, attempts)
    }

    /// The name of the first cumulative figure in which `self` is less than `earlier`.
    pub(crate) fn backwards_of(&self, earlier: &Self) -> Option<&'static str> {
        [
            ("opened", self.opened, earlier.opened),
            ("adopted", self.adopted, earlier.adopted),
            ("refused", self.refused, earlier.refused),
            ("timed_out", self.timed_out, earlier.timed_out),
            ("unreachable", self.unreachable, earlier.unreachable),
            ("reset", self.reset, earlier.reset),
            ("aborted", self.aborted, earlier.aborted),
            ("bytes_sent", self.bytes_sent, earlier.bytes_sent),
            ("bytes_received", self.bytes_received, earlier.bytes_received),
            ("connect_us", self.connect_us, earlier.connect_us),
            ("rtt_us", self.rtt_us, earlier.rtt_us),
            ("rtt_samples", self.rtt_samples, earlier.rtt_samples),
            ("retransmits", self.retransmits, earlier.retransmits),
            ("lost", self.lost, earlier.lost),
        ]
        .into_iter()
        .find_map(|(name, now, before)| (now < before).then_some(name))
    }
}
