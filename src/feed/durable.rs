//! Nothing is told before it is on disk.
//!
//! A cursor promises that no transaction before its `next` will be numbered again. A crash that loses the end of the
//! log (of an asynchronous commit, of anyone, in any database) would break that promise, and might take back what a
//! listener was told. So the log is flushed after the snapshot was taken and before anything is answered, also where
//! there is nothing to tell.

use pgrx::pg_sys;

/// Bytes of the header of a page of the log, and of the first page of a segment.
const PAGE_HEADER: u64 = 24;
const SEGMENT_HEADER: u64 = 40;

/// Flushes all that was written to the log so far.
pub fn flush() {
    // SAFETY: outside recovery; the position is the end of a record that was inserted, or the start of a page.
    unsafe { pg_sys::XLogFlush(end_of_log(pg_sys::GetXLogInsertRecPtr(), pg_sys::wal_segment_size as u64)) }
}

/// Where the log ends, given where it goes on. After a full page it goes on behind the header of the next one, which is
/// not written yet: flushing up to there would fail.
fn end_of_log(goes_on: u64, segment: u64) -> u64 {
    let page = u64::from(pg_sys::XLOG_BLCKSZ);
    let header = if goes_on % segment < page { SEGMENT_HEADER } else { PAGE_HEADER };
    if goes_on % page == header { goes_on - header } else { goes_on }
}

#[cfg(any(test, feature = "pg_test"))]
mod tests {
    #[test]
    fn the_log_ends_before_the_header_of_an_empty_page() {
        let segment = 16 << 20;
        let end = |goes_on| super::end_of_log(goes_on, segment);
        assert_eq!(end(3 * 8192 + 24), 3 * 8192);
        assert_eq!(end(3 * 8192 + 25), 3 * 8192 + 25);
        assert_eq!(end(3 * 8192 + 40), 3 * 8192 + 40);
        assert_eq!(end(segment + 40), segment);
        assert_eq!(end(segment + 24), segment + 24);
    }
}
