//! Taking over a connection whose beginning was not seen here, or not to its end.

use super::open::{How, NotOpened, begun, open};
use super::place::Target;
use super::{Counter, FamilyTables, count_step};
use crate::abi::{Embryo, Flow, Side};
use crate::packet::{Headers, Ip, flag};
use crate::shared::Shared;
use crate::tcp::after;
use crate::tcp::lifecycle::observe;
use crate::tcp::word::{EmbryoPhase, EmbryoWord, End, FlowWord};

/// Makes a flow of an embryo on the instance's word that it has the connection: a trial that it
/// answered (`adopted`), or a handshake whose last acknowledgement it must have had (`opened`). The
/// windows of a handshake that was not seen are taken as the largest, so that nothing valid is taken
/// for invalid.
#[inline(always)]
pub fn adopt<A: Ip, T: FamilyTables<A>>(
    tables: &T,
    segment: &Headers<A>,
    to: &Target<'_, A>,
    embryo: Shared<'_, Embryo>,
    word: EmbryoWord,
) {
    const LARGEST_WINDOW: u32 = 1 << 30;
    const LARGEST_SCALE: u8 = 14;
    let now = tables.now();
    let trial = matches!(word.phase(), EmbryoPhase::Trial);
    let (sent, fin) = (embryo.client_seq().get(), trial && word.client_fin());
    // What the instance acknowledges was sent, seen here or not.
    let beyond = after(segment.ack, sent.wrapping_add(u32::from(fin)));
    let state = FlowWord::live(tables.tag(), LARGEST_SCALE, LARGEST_SCALE)
        .with_mode(to.service.mode);
    let mut flow = Flow {
        state: if fin && !beyond { state.with_fin_seen(End::Client).0 } else { state.0 },
        client: Side {
            next: if beyond { segment.ack } else { sent },
            ack: segment.seq,
            edge: segment.seq.wrapping_add(LARGEST_WINDOW),
            fin: sent.wrapping_add(1),
        },
        server: Side {
            next: segment.seq,
            ack: segment.ack,
            edge: segment.ack.wrapping_add(LARGEST_WINDOW),
            fin: 0,
        },
        ..begun(embryo, now)
    };
    let how = if trial { How::ADOPTED } else { How { limited: false, ..How::OPENED } };
    match open(tables, to, &mut flow, (embryo, word), None, how) {
        Ok(()) => {}
        Err(NotOpened::Full) => {
            // The answer goes on to the client, so the connection lives without an entry.
            tables.count(flow.backend, Counter::Untracked);
            return;
        }
        Err(_) => return,
    }
    if let Some(entry) = tables.flow(&to.key)
        && !segment.has(flag::SYN)
    {
        let step = observe(entry, End::Server, segment, now as u32);
        count_step(tables, &to.key, entry, step);
    }
}
