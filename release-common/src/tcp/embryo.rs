//! The state word of an embryo.

/// Phases of an embryo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EmbryoPhase {
    /// The client's SYN was sent on.
    Syn,
    /// The instance answered with a SYN-ACK.
    SynAck,
    /// A mid-flow packet was sent to an instance; its answer decides.
    Trial,
    /// Being removed, promoted or replaced at this very moment.
    Ended,
}

/// State word of an embryo.
///
/// Bits 0–1 phase · 2 measured · 3 waits for its SYN-ACK, which is measured · 4–7 client's window scale (15: none) · 8–11 server's (15: none) ·
/// 12–31 tag · 32–63 the server's initial sequence number, or for a trial: 32–47 versions tried,
/// 48–55 the version being tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmbryoWord(pub u64);

const NO_SCALE: u8 = 15;

impl EmbryoWord {
    const MEASURED: u32 = 2;
    const WAITS: u32 = 3;
    const TAG: u32 = 12;
    const HIGH: u32 = 32;

    /// A handshake begun by a SYN with this window scale option.
    #[inline(always)]
    pub const fn syn(tag: u32, client_scale: Option<u8>) -> Self {
        let scale = match client_scale {
            Some(scale) => scale & 15,
            None => NO_SCALE,
        };
        Self((scale as u64) << 4 | ((tag & 0xf_ffff) as u64) << Self::TAG)
    }

    /// A trial of the version with index `version`.
    #[inline(always)]
    pub const fn trial(tag: u32, tried: u16, version: u8) -> Self {
        Self(
            2 | ((tag & 0xf_ffff) as u64) << Self::TAG
                | (tried as u64) << Self::HIGH
                | (version as u64) << 48,
        )
    }

    /// The phase.
    #[inline(always)]
    pub const fn phase(self) -> EmbryoPhase {
        match self.0 & 3 {
            0 => EmbryoPhase::Syn,
            1 => EmbryoPhase::SynAck,
            2 => EmbryoPhase::Trial,
            _ => EmbryoPhase::Ended,
        }
    }

    /// The word after the instance's SYN-ACK.
    #[inline(always)]
    pub const fn with_syn_ack(self, server_seq: u32, server_scale: Option<u8>) -> Self {
        let scale = match server_scale {
            Some(scale) => scale & 15,
            None => NO_SCALE,
        };
        Self(self.0 & 0xffff_f0f4 | 1 | (scale as u64) << 8 | (server_seq as u64) << Self::HIGH)
    }

    /// The word of an embryo whose flow will be measured, or will not; `waits`: so is how long its
    /// SYN-ACK takes.
    #[inline(always)]
    pub const fn with_measured(self, measured: bool, waits: bool) -> Self {
        let bits = (measured as u64) << Self::MEASURED | (waits as u64) << Self::WAITS;
        Self(self.0 & !(1 << Self::MEASURED | 1 << Self::WAITS) | bits)
    }

    /// Whether its flow will be measured.
    #[inline(always)]
    pub const fn measured(self) -> bool {
        self.0 >> Self::MEASURED & 1 != 0
    }

    /// Whether it waits for its SYN-ACK, and that is measured.
    #[inline(always)]
    pub const fn waits(self) -> bool {
        self.0 >> Self::WAITS & 1 != 0
    }

    /// The word while the embryo is taken down.
    #[inline(always)]
    pub const fn ended(self) -> Self {
        Self(self.0 | 3)
    }

    /// The word of an embryo that was taken down before anybody could see it, once it may be seen: a
    /// handshake begun.
    #[inline(always)]
    pub const fn begun(self) -> Self {
        Self(self.0 & !3)
    }

    /// The server's initial sequence number, once there was a SYN-ACK.
    #[inline(always)]
    pub const fn server_seq(self) -> u32 {
        (self.0 >> Self::HIGH) as u32
    }

    /// Window scales of client and server in force for the connection, once there was a SYN-ACK:
    /// both or none (RFC 7323 §2.2).
    #[inline(always)]
    pub const fn scales(self) -> (u8, u8) {
        let (client, server) = ((self.0 >> 4 & 15) as u8, (self.0 >> 8 & 15) as u8);
        if client == NO_SCALE || server == NO_SCALE { (0, 0) } else { (client, server) }
    }

    /// Trial: set of versions already tried, the current one included.
    #[inline(always)]
    pub const fn tried(self) -> u16 {
        (self.0 >> Self::HIGH) as u16
    }

    /// Trial: the word once the client's FIN was sent to the instance.
    #[inline(always)]
    pub const fn with_client_fin(self) -> Self {
        Self(self.0 | 1 << 4)
    }

    /// Trial: whether the client's FIN was sent to the instance.
    #[inline(always)]
    pub const fn client_fin(self) -> bool {
        self.0 >> 4 & 1 == 1
    }

    /// Trial: index of the version being tried.
    #[inline(always)]
    pub const fn version(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// Incarnation tag.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> Self::TAG & 0xf_ffff) as u32
    }
}
