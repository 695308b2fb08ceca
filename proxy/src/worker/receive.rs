//! Handles the messages of a worker.

use std::rc::Rc;
use std::time::Instant;

use pgimbal_pooler::cancel::request::Cancelling;

use super::actions::run_actions;
use super::cancels::Delivery;
use super::message::Message;
use super::shared::Worker;
use super::state::State;
use super::{login, migration, pools, start};

/// Handles one message and performs the actions that the core orders because of it.
/// [`Message::Stop`] is handled by the caller.
pub(super) fn receive(worker: &Rc<Worker>, message: Message) {
    match message {
        Message::Accepted(accepted) => {
            tokio::task::spawn_local(login::log_in(Rc::clone(worker), accepted));
        }
        Message::Arrive(migrant) => start::migrate_in(worker, *migrant),
        Message::Cancel { process_id, secret, delivery } => {
            cancel(&mut worker.state_mut(), process_id, &secret, delivery);
        }
        Message::Ask { pool, by } => migration::asked(&mut worker.state_mut(), &pool, by),
        Message::AskForIdle => worker.state_mut().pooler.handle_idle_request(Instant::now()),
        Message::MigrateIn(moved) => migration::migrate_in(&mut worker.state_mut(), *moved),
        Message::Topology { cluster, view } => {
            pools::follow_cluster(&mut worker.state_mut(), &cluster, view);
        }
        Message::Credential { role, event } => {
            worker.state_mut().pooler.handle_credential_event(&role, event, Instant::now());
        }
        Message::Renew { database, how, reply } => {
            let now = Instant::now();
            let renewed = worker.state_mut().pooler.renew(database.as_deref(), how, now);
            // Whoever asked may have gone.
            let _ = reply.send(renewed);
        }
        Message::ExplainRoute { text, reply } => {
            let routes = worker.state_mut().pooler.explain_route(&text, Instant::now());
            // Whoever asked may have gone.
            let _ = reply.send(routes);
        }
        Message::Name { name, addresses } => {
            pools::follow_name(&mut worker.state_mut(), &name, &addresses);
        }
        Message::Reload(directory) => pools::reload(&mut worker.state_mut(), directory),
        Message::Drain(time) => worker.state_mut().pooler.drain(time, Instant::now()),
        Message::CutOff => worker.state_mut().pooler.cut_off(),
        Message::Stop => {}
    }
    run_actions(worker);
}

fn cancel(state: &mut State, process_id: u32, secret: &[u8], delivery: Delivery) {
    let cancelling = state.pooler.handle_cancel_request(process_id, secret);
    if cancelling != Cancelling::WrongKey {
        delivery.set_known();
    }
    if let Cancelling::Sent(server) = cancelling {
        state.cancels.add(server, delivery);
    }
}
