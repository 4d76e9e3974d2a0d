//! Sends rows: the whole result at once, in a tuplestore, as set-returning functions in FROM want
//! it.

use pg_stock_core::Answer;
use pgrx::pg_sys;

use crate::store::datum::{Value, bytes, flag, int, line, opt_int, text, word};

/// Sends answers as rows of the type stock.answer.
pub fn send_answers(fcinfo: pg_sys::FunctionCallInfo, answers: &[Answer]) {
    send(fcinfo, answers.iter().map(columns));
}

fn columns(answer: &Answer) -> [Value; 14] {
    let at = answer.at.as_ref();
    [
        line(answer.request),
        line(answer.line),
        text(&answer.key),
        bytes(at.map_or(b"", |at| at.sku.as_bytes())),
        bytes(at.map_or(b"", |at| at.location.as_bytes())),
        int(answer.quantity),
        word(answer.outcome.word()),
        word(answer.state.word()),
        opt_int(answer.available),
        opt_int(answer.version),
        opt_int(answer.expires_at),
        flag(answer.replayed),
        opt_int(answer.opens_at),
        int(answer.backordered),
    ]
}

/// Sends rows whose columns are those of the function's result type.
pub fn send<const N: usize>(
    fcinfo: pg_sys::FunctionCallInfo,
    rows: impl Iterator<Item = [Value; N]>,
) {
    // SAFETY: PostgreSQL calls a set-returning function with a ReturnSetInfo that describes the
    // rows it expects; what outlives the call is made in the memory context of the query, as for
    // every function that materializes its result.
    unsafe {
        let info = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let query_context = (*(*info).econtext).ecxt_per_query_memory;
        let before = pg_sys::MemoryContextSwitchTo(query_context);
        let store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
        pg_sys::MemoryContextSwitchTo(before);
        (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
        (*info).setResult = store;
        for row in rows {
            let mut values = row.map(|column| column.unwrap_or(pg_sys::Datum::null()));
            let mut nulls = row.map(|column| column.is_none());
            pg_sys::tuplestore_putvalues(
                store,
                (*info).expectedDesc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}
