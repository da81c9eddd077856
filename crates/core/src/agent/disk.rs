//! Keeps the image file system from filling up.

use larder_api::node_image_cache::DiskOnNode;

use super::types::{Disk, RunningPull};
use crate::format;

/// Bytes that an image takes on the disk for each of its compressed ones, in tenths: 1 for the layers as they arrive,
/// and 1.2 of them unpacked beyond that for layers that compress badly or are kept beside their snapshots. An estimate on
/// the low side for text and on the high side for binaries: what is wrong with it shows in the next image's check.
const TENTHS: u64 = 22;
/// A change of the free share by less than so many points is not written.
const POINTS: i32 = 5;

/// What may still be taken from the disk.
pub(super) struct Guard {
    disk: Option<Disk>,
    percent: u64,
    /// Bytes that pulls at work will still take.
    promised: u64,
}

/// Whether an image fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    /// Not while other pulls are at work.
    Later,
    /// No, in words.
    No(String),
}

impl Guard {
    /// `percent` is what must stay free.
    pub(super) fn new(disk: Option<Disk>, percent: i32, pulls: &[RunningPull]) -> Self {
        let promised = pulls
            .iter()
            .map(|p| expected(p.bytes_total.max(p.order.bytes)).saturating_sub(unsigned(p.bytes_done)))
            .fold(0, u64::saturating_add);
        Self {
            disk,
            percent: u64::try_from(percent).unwrap_or(0).min(100),
            promised,
        }
    }

    /// Whether an image of so many compressed bytes fits. One of unknown size fits where anything does.
    pub(super) fn fits(&self, bytes: i64) -> Fit {
        let Some(disk) = self.disk else {
            return Fit::Yes;
        };
        let limit =
            u64::try_from(u128::from(disk.total) * u128::from(self.percent) / 100).unwrap_or(u64::MAX);
        let need = expected(bytes);
        let enough = |promised: u64| disk.free >= limit.saturating_add(need).saturating_add(promised);
        if enough(self.promised) {
            return Fit::Yes;
        }
        if enough(0) {
            return Fit::Later;
        }
        let words = |bytes: u64| format::bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
        Fit::No(format!(
            "needs {}, {} free of {}, {}% must stay free",
            words(need),
            words(disk.free),
            words(disk.total),
            self.percent
        ))
    }

    /// A pull of so many compressed bytes begins.
    pub(super) fn promise(&mut self, bytes: i64) {
        self.promised = self.promised.saturating_add(expected(bytes));
    }
}

/// Bytes on the disk of an image with so many compressed ones.
fn expected(bytes: i64) -> u64 {
    u64::try_from(u128::from(unsigned(bytes)) * u128::from(TENTHS) / 10).unwrap_or(u64::MAX)
}

fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

/// What the status says of the disk: what it said before, unless that is off by a good deal.
pub(super) fn report(disk: Option<Disk>, before: Option<&DiskOnNode>) -> Option<DiskOnNode> {
    let disk = disk?;
    let free = (u128::from(disk.free) * 100)
        .checked_div(u128::from(disk.total))
        .unwrap_or(0);
    let next = DiskOnNode {
        total_bytes: i64::try_from(disk.total).unwrap_or(i64::MAX),
        free_percent: i32::try_from(free.min(100)).unwrap_or(100),
    };
    match before {
        Some(before)
            if before.total_bytes == next.total_bytes
                && (before.free_percent - next.free_percent).abs() < POINTS =>
        {
            Some(before.clone())
        }
        _ => Some(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::PullOrder;

    const GIB: u64 = 1 << 30;

    fn pull(bytes: u64, done: u64) -> RunningPull {
        RunningPull {
            order: PullOrder {
                bytes: bytes as i64,
                ..PullOrder::default()
            },
            started_at: jiff::Timestamp::UNIX_EPOCH,
            bytes_done: done as i64,
            bytes_total: 0,
        }
    }

    #[test]
    fn what_must_stay_free_stays_free() {
        let disk = Some(Disk {
            total: 20 * GIB,
            free: 5 * GIB,
        });
        let fits =
            |percent, pulls: &[RunningPull], bytes: u64| Guard::new(disk, percent, pulls).fits(bytes as i64);
        let no = |text: &str| Fit::No(text.to_owned());
        let half = GIB / 2;
        assert_eq!(fits(20, &[], 100 << 20), Fit::Yes);
        assert_eq!(
            fits(20, &[], half),
            no("needs 1.1 GiB, 5.0 GiB free of 20.0 GiB, 20% must stay free")
        );
        assert_eq!(fits(0, &[], 2 * GIB), Fit::Yes);
        assert_eq!(fits(10, &[], half), Fit::Yes);
        // Others are at work: of 1 GiB, none or nearly all of which has arrived and been unpacked.
        assert_eq!(fits(10, &[pull(GIB, 0)], half / 2), Fit::Yes);
        assert_eq!(fits(10, &[pull(GIB, 0)], GIB), Fit::Later);
        assert_eq!(fits(10, &[pull(GIB, GIB)], GIB - half / 4), Fit::Later);
        assert_eq!(fits(10, &[pull(GIB, GIB)], half), Fit::Yes);
        // Under the limit nothing begins, whatever its size.
        assert_eq!(
            fits(30, &[], 0),
            no("needs 0 B, 5.0 GiB free of 20.0 GiB, 30% must stay free")
        );
        assert_eq!(Guard::new(None, 90, &[]).fits(i64::MAX), Fit::Yes);
    }

    #[test]
    fn what_begins_is_promised() {
        let disk = Some(Disk {
            total: 10 * GIB,
            free: 5 * GIB,
        });
        let mut guard = Guard::new(disk, 0, &[]);
        guard.promise(2 * GIB as i64);
        assert_eq!(guard.fits(GIB as i64), Fit::Later);
        assert_eq!(guard.fits((GIB / 4) as i64), Fit::Yes);
    }

    #[test]
    fn small_changes_are_not_told() {
        let disk = |percent: u64| {
            Some(Disk {
                total: 1000,
                free: percent * 10,
            })
        };
        let said = |percent| {
            Some(DiskOnNode {
                total_bytes: 1000,
                free_percent: percent,
            })
        };
        assert_eq!(report(disk(50), None), said(50));
        assert_eq!(report(disk(46), said(50).as_ref()), said(50));
        assert_eq!(report(disk(45), said(50).as_ref()), said(45));
        assert_eq!(
            report(Some(Disk::default()), said(50).as_ref())
                .unwrap()
                .free_percent,
            0
        );
        assert_eq!(report(None, said(50).as_ref()), None);
    }
}
