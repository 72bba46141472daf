use super::server::Server;
use super::requests::Refusal;
use crate::frame::{code, Message, ProtocolError};
impl Server {
    pub(super) fn start_job(&mut self, conn: u64, m: Message<'_>) -> Result<(), ProtocolError> {
        self.answer(conn, m.stream, Err(Refusal::new(code::UNSUPPORTED, "not yet"))); Ok(())
    }
    pub(super) fn job_input(&mut self, _conn: u64, _m: Message<'_>) -> Result<(), ProtocolError> { Ok(()) }
    pub(super) fn grant_job(&mut self, _id: u32, _n: u64) -> bool { true }
    pub(super) fn cancel_job(&mut self, _id: u32) {}
}
