//! The supervisor with real actors on real threads. Every wait is for a condition.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use actix::{Addr, Arbiter, WrapFuture};
use futures_util::future::join_all;

use super::*;
use crate::actors::link::Link;
use crate::metrics::Metrics;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::restart::{Intensity, Policy, Strategy};

const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for a thread that shares two cores with everybody else's tests.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
const NAMES: [&str; 3] = ["store", "tracker", "ingest"];
const STRATEGIES: [Strategy; 2] = [Strategy::OneForOne, Strategy::RestForOne];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
enum Fault {
    PanicInHandler,
    PanicInFuture,
    Stop,
    Hang,
    EndThread,
}

/// Answers with (generation, pieces of work done by this generation).
#[derive(Message)]
#[rtype(result = "(u64, usize)")]
struct Work;

struct Probe {
    generation: u64,
    done: usize,
    pulse: Pulse,
    shared: Arc<Shared>,
    _end: End,
    _guard: Guard,
}

supervised!(Probe);

/// Notes the end of a probe.
struct End(&'static str, u64, Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.2.ends.lock().unwrap().push((self.0, self.1));
    }
}

/// What a probe shares with its test.
#[derive(Default)]
struct Shared {
    faults: Link<Fault>,
    work: Link<Work>,
    done: AtomicUsize,
    ends: Mutex<Vec<(&'static str, u64)>>,
    panics_in_started: AtomicU32,
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let left = &self.shared.panics_in_started;
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("in started");
        }
    }
}

impl Handler<Work> for Probe {
    type Result = actix::MessageResult<Work>;

    fn handle(&mut self, _: Work, _: &mut Self::Context) -> Self::Result {
        self.done += 1;
        self.shared.done.fetch_add(1, Ordering::SeqCst);
        actix::MessageResult((self.generation, self.done))
    }
}

impl Handler<Fault> for Probe {
    type Result = ();

    fn handle(&mut self, fault: Fault, ctx: &mut Self::Context) {
        match fault {
            Fault::PanicInHandler => panic!("in a handler"),
            Fault::PanicInFuture => {
                ctx.spawn(async { panic!("in a future") }.into_actor(self));
            }
            Fault::Stop => Sabotage::Stop.strike(&self.pulse, ctx),
            Fault::Hang => Sabotage::Hang.strike(&self.pulse, ctx),
            Fault::EndThread => {
                Arbiter::current().stop();
            }
        }
    }
}

fn start_probe(name: &'static str, shared: &Arc<Shared>, context: StartContext) -> Running {
    let StartContext { guard, pulse, arbiter, generation } = context;
    let for_actor = Arc::clone(shared);
    let addr = Probe::start_in_arbiter(&arbiter, move |_| Probe {
        generation,
        done: 0,
        pulse,
        shared: Arc::clone(&for_actor),
        _end: End(name, generation, for_actor),
        _guard: guard,
    });
    shared.faults.publish(&addr);
    shared.work.publish(&addr);
    Running::of(&addr)
}

fn child(name: &'static str, thread: &'static str, shared: Arc<Shared>) -> ChildSpec {
    ChildSpec {
        name,
        policy: Policy::Permanent,
        heartbeat: Some(HEARTBEAT_TIMEOUT),
        thread,
        start: Box::new(move |context| Ok(start_probe(name, &shared, context))),
    }
}

fn group(strategy: Strategy, max_restarts: u32, children: Vec<ChildSpec>) -> GroupSpec {
    GroupSpec {
        name: "pipeline",
        strategy,
        intensity: Intensity { max_restarts, window: PATIENCE },
        backoff: Backoff { base: Duration::from_millis(100), max: Duration::from_millis(200) },
        stop_timeout: Duration::from_secs(10),
        children,
    }
}

/// A supervisor and what can be seen of it.
struct Bench {
    supervisor: Addr<Supervisor>,
    state: SupervisorState,
    metrics: Arc<Metrics>,
    probes: Vec<Arc<Shared>>,
    escalations: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn start(groups: Vec<GroupSpec>, probes: Vec<Arc<Shared>>) -> Self {
        install_panic_hook();
        let state = SupervisorState::default();
        let metrics = Arc::new(Metrics::new().unwrap());
        let escalations = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&escalations);
        let spec = SupervisorSpec {
            groups,
            heartbeat_interval: Duration::from_millis(20),
            state: state.clone(),
            metrics: Arc::clone(&metrics),
            escalate: Box::new(move |reason| seen.lock().unwrap().push(reason)),
            allow_sabotage: true,
        };
        Self { supervisor: Supervisor::new(spec).start(), state, metrics, probes, escalations }
    }

    /// Three probes, on one thread or on one each.
    fn of_three(strategy: Strategy, shared_thread: bool, max_restarts: u32) -> Self {
        let probes: Vec<_> = NAMES.iter().map(|_| Arc::<Shared>::default()).collect();
        let thread = |name| if shared_thread { "all" } else { name };
        // On a shared thread the first one is only ever found to hang by way of it.
        let heartbeat = |name| (!shared_thread || name != NAMES[0]).then_some(HEARTBEAT_TIMEOUT);
        let children = NAMES.iter().zip(&probes).map(|(name, probe)| ChildSpec {
            heartbeat: heartbeat(*name),
            ..child(name, thread(name), Arc::clone(probe))
        });
        Self::start(vec![group(strategy, max_restarts, children.collect())], probes)
    }

    fn generations(&self) -> Vec<(bool, u64)> {
        self.state.children().iter().map(|child| (child.up, child.generation)).collect()
    }

    async fn wait_for_generations(&self, expected: &[u64], what: &str) {
        let expected: Vec<_> = expected.iter().map(|generation| (true, *generation)).collect();
        eventually(what, || self.generations(), |seen| *seen == expected).await;
    }

    fn restarts(&self, actor: &str, cause: Cause) -> u64 {
        self.metrics.actor_restarts.with_label_values(&[actor, cause.as_str()]).get()
    }
}

async fn eventually<T: std::fmt::Debug>(what: &str, look: impl Fn() -> T, is_good: impl Fn(&T) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if is_good(&seen) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: last seen {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn hurt_the_second_of_three(strategy: Strategy, shared_thread: bool, fault: Fault) {
    let what = format!("{fault:?} under {strategy:?}, shared thread: {shared_thread}");
    let bench = Bench::of_three(strategy, shared_thread, 3);
    bench.wait_for_generations(&[1, 1, 1], &what).await;
    assert_eq!(bench.probes[1].work.current().unwrap().send(Work).await.unwrap(), (1, 1));
    assert!(bench.probes[1].faults.send(fault));

    let takes_thread = matches!(fault, Fault::Hang | Fault::EndThread);
    let expected = match strategy {
        _ if shared_thread && takes_thread => [2, 2, 2],
        Strategy::OneForOne => [1, 2, 1],
        Strategy::RestForOne => [1, 2, 2],
    };
    bench.wait_for_generations(&expected, &what).await;
    for (probe, generation) in bench.probes.iter().zip(expected) {
        let work = probe.work.current().unwrap().send(Work).await;
        assert_eq!(work.unwrap(), (generation, 1), "{what}: fresh state, and the link leads to it");
    }

    let (cause, reason) = match fault {
        Fault::PanicInHandler => (Cause::Panic, "panicked: in a handler (src/actors/supervisor/tests.rs"),
        Fault::PanicInFuture => (Cause::Panic, "panicked: in a future (src/actors/supervisor/tests.rs"),
        Fault::Stop | Fault::EndThread => (Cause::Stop, "stopped by itself"),
        Fault::Hang => (Cause::Hang, "hung: "),
    };
    let status = bench.state.child(NAMES[1]).unwrap();
    assert!(status.last_reason.as_deref().is_some_and(|seen| seen.starts_with(reason)), "{what}: {status:?}");
    assert_eq!((status.restarts, bench.restarts(NAMES[1], cause)), (1, 1), "{what}");
    if strategy != Strategy::OneForOne && !takes_thread {
        assert_eq!(bench.restarts(NAMES[2], Cause::Sibling), 1, "{what}");
    }
    assert_eq!(bench.metrics.abandoned_threads.get(), u64::from(fault == Fault::Hang), "{what}");

    // Who was given up comes back from its hang, ends, and changes nothing any more.
    let ended = || bench.probes[1].ends.lock().unwrap().clone();
    eventually(&what, ended, |ends| *ends == [(NAMES[1], 1)]).await;
    bench.supervisor.send(Stop).await.unwrap();
    assert_eq!(bench.state.children().iter().map(|c| c.generation).collect::<Vec<_>>(), expected, "{what}");
    assert!(bench.escalations.lock().unwrap().is_empty(), "{what}");
}

#[actix::test]
async fn every_fault_under_every_strategy_restarts_whom_it_must_with_fresh_state() {
    let mut cases = Vec::new();
    for fault in [Fault::PanicInHandler, Fault::PanicInFuture, Fault::Stop, Fault::Hang, Fault::EndThread] {
        for strategy in STRATEGIES {
            for shared_thread in [false, true] {
                cases.push(hurt_the_second_of_three(strategy, shared_thread, fault));
            }
        }
    }
    join_all(cases).await;
}

#[actix::test]
async fn several_deaths_at_once_end_with_all_alive() {
    let mut cases = Vec::new();
    for strategy in STRATEGIES {
        for shared_thread in [false, true] {
            for fault in [Fault::PanicInHandler, Fault::Stop, Fault::Hang] {
                cases.push(async move {
                    let what = format!("{fault:?} under {strategy:?}, shared thread: {shared_thread}");
                    let bench = Bench::of_three(strategy, shared_thread, 3);
                    bench.wait_for_generations(&[1, 1, 1], &what).await;
                    for probe in &bench.probes {
                        probe.faults.send(fault);
                    }
                    let all_new = |seen: &Vec<(bool, u64)>| seen.iter().all(|(up, generation)| *up && *generation > 1);
                    eventually(&what, || bench.generations(), all_new).await;
                    for probe in &bench.probes {
                        assert_eq!(probe.work.current().unwrap().send(Work).await.unwrap().1, 1, "{what}");
                    }
                    assert!(bench.escalations.lock().unwrap().is_empty(), "{what}");
                });
            }
        }
    }
    join_all(cases).await;
}

#[actix::test]
async fn a_crash_loop_escalates_once_stops_everybody_and_stop_still_answers() {
    for strategy in STRATEGIES {
        let bench = Bench::of_three(strategy, false, 3);
        let what = format!("{strategy:?}");
        bench.wait_for_generations(&[1, 1, 1], &what).await;
        bench.probes[1].panics_in_started.store(u32::MAX, Ordering::SeqCst);
        bench.probes[1].faults.send(Fault::PanicInHandler);
        eventually(&what, || bench.escalations.lock().unwrap().len(), |count| *count == 1).await;
        bench.supervisor.send(Stop).await.unwrap();
        bench.supervisor.send(Stop).await.unwrap();
        assert!(bench.state.children().iter().all(|child| !child.up), "{what}");
        let reason = bench.escalations.lock().unwrap().clone();
        assert_eq!(reason.len(), 1, "{what}");
        assert!(
            reason[0]
                .starts_with("group pipeline failed more than 3 times within 30s; the last was tracker: panicked: in")
        );
        assert_eq!(bench.state.escalated().as_ref(), reason.first());
        assert_eq!(bench.state.child("tracker").unwrap().generation, 4, "{what}: three restarts");
        // A mailbox is closed right after its actor has reported its end.
        let reachable = || bench.probes.iter().filter(|probe| probe.faults.send(Fault::Stop)).count();
        eventually(&what, reachable, |count| *count == 0).await;
    }
}

#[actix::test]
async fn a_factory_that_fails_or_panics_is_tried_again_with_backoff() {
    let probe = Arc::<Shared>::default();
    let for_start = Arc::clone(&probe);
    let start = move |context: StartContext| match context.generation {
        1 => Err(StartError("no socket".into())),
        2 => panic!("no memory"),
        _ => Ok(start_probe("store", &for_start, context)),
    };
    let child = ChildSpec { start: Box::new(start), ..child("store", "store", Arc::clone(&probe)) };
    let bench = Bench::start(vec![group(Strategy::OneForOne, 3, vec![child])], vec![probe]);
    bench.wait_for_generations(&[3], "third try").await;
    assert_eq!(bench.restarts("store", Cause::StartFailure), 2);
    assert_eq!(bench.state.child("store").unwrap().last_reason.as_deref(), Some("did not start: panicked: no memory"));
    assert_eq!(bench.probes[0].work.current().unwrap().send(Work).await.unwrap(), (3, 1));
}

#[actix::test]
async fn a_factory_that_never_works_escalates() {
    let start = |_: StartContext| Err(StartError("no socket".into()));
    let child = ChildSpec { start: Box::new(start), ..child("store", "store", Arc::default()) };
    let bench = Bench::start(vec![group(Strategy::OneForOne, 2, vec![child])], Vec::new());
    eventually("escalation", || bench.escalations.lock().unwrap().len(), |count| *count == 1).await;
    bench.supervisor.send(Stop).await.unwrap();
    assert_eq!(bench.generations(), [(false, 3)]);
}

#[actix::test]
async fn transient_and_temporary_children_come_back_only_when_they_should() {
    let cases = [
        (Policy::Transient, Fault::Stop, (false, 1)),
        (Policy::Transient, Fault::PanicInHandler, (true, 2)),
        (Policy::Temporary, Fault::Stop, (false, 1)),
        (Policy::Temporary, Fault::PanicInHandler, (false, 1)),
    ];
    for (policy, fault, expected) in cases {
        let probes = vec![Arc::<Shared>::default(), Arc::<Shared>::default()];
        let children = vec![
            ChildSpec { policy, ..child("store", "store", Arc::clone(&probes[0])) },
            child("ingest", "ingest", Arc::clone(&probes[1])),
        ];
        let bench = Bench::start(vec![group(Strategy::RestForOne, 3, children)], probes);
        let what = format!("{policy:?} {fault:?}");
        bench.wait_for_generations(&[1, 1], &what).await;
        bench.probes[0].faults.send(fault);
        let sibling = (true, if expected.0 { 2 } else { 1 });
        eventually(&what, || bench.generations(), |seen| *seen == [expected, sibling]).await;
    }
}

#[actix::test]
async fn stop_drains_each_child_and_goes_from_the_last_to_the_first() {
    let probes: Vec<_> = (0..4).map(|_| Arc::<Shared>::default()).collect();
    let ends = Arc::<Shared>::default();
    const ORDERED: [&str; 4] = ["letters", "lag", "store", "ingest"];
    let mut children: Vec<_> = ORDERED
        .iter()
        .zip(&probes)
        .map(|(name, probe)| {
            let (ends, probe) = (Arc::clone(&ends), Arc::clone(probe));
            let start = move |context: StartContext| {
                let end = End(name, context.generation, Arc::clone(&ends));
                let running = start_probe(name, &probe, context);
                // Dropped with the address, after the guard has reported.
                Ok(Running::new(running.stop.unwrap(), move || {
                    let _ = (&end, (running.heartbeat)());
                }))
            };
            ChildSpec { start: Box::new(start), ..child(name, "all", Arc::default()) }
        })
        .collect();
    let pipeline = children.split_off(2);
    let groups = vec![group(Strategy::OneForOne, 3, children), group(Strategy::RestForOne, 3, pipeline)];
    let bench = Bench::start(groups, probes);
    bench.wait_for_generations(&[1; 4], "start").await;
    for probe in &bench.probes {
        for _ in 0..1000 {
            probe.work.send(Work);
        }
    }
    bench.supervisor.send(Stop).await.unwrap();
    assert!(bench.probes.iter().all(|probe| probe.done.load(Ordering::SeqCst) == 1000), "drained");
    let order: Vec<_> = ends.ends.lock().unwrap().iter().map(|(name, _)| *name).collect();
    assert_eq!(order, ["ingest", "store", "lag", "letters"]);
    assert!(bench.state.children().iter().all(|child| !child.up && child.last_reason.is_none()));
}

#[actix::test]
async fn a_child_that_does_not_stop_in_time_is_left_behind() {
    for stop_whole in [true, false] {
        let probes = vec![Arc::<Shared>::default(), Arc::<Shared>::default()];
        let deaf = Arc::clone(&probes[1]);
        let start = move |context: StartContext| {
            let Running { heartbeat, .. } = start_probe("ingest", &deaf, context);
            Ok(Running::new(|| {}, heartbeat))
        };
        let children = vec![
            child("store", "store", Arc::clone(&probes[0])),
            ChildSpec { start: Box::new(start), ..child("ingest", "ingest", Arc::default()) },
        ];
        let spec = GroupSpec { stop_timeout: Duration::from_millis(100), ..group(Strategy::RestForOne, 3, children) };
        let bench = Bench::start(vec![spec], probes);
        bench.wait_for_generations(&[1, 1], "start").await;
        if stop_whole {
            bench.supervisor.send(Stop).await.unwrap();
            assert_eq!(bench.generations(), [(false, 1), (false, 1)]);
        } else {
            bench.probes[0].faults.send(Fault::Stop);
            bench.wait_for_generations(&[2, 2], "restart").await;
        }
        assert_eq!(bench.metrics.abandoned_threads.get(), 1);
        let ends = || bench.probes[1].ends.lock().unwrap().clone();
        eventually("its thread is ended", ends, |ends| ends.contains(&("ingest", 1))).await;
    }
}

#[actix::test]
async fn an_idle_child_is_asked_again_and_again_and_never_suspected() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (counter, probe) = (Arc::clone(&asked), Arc::<Shared>::default());
    let for_start = Arc::clone(&probe);
    let start = move |context: StartContext| {
        let (running, counter) = (start_probe("store", &for_start, context), Arc::clone(&counter));
        let heartbeat = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            (running.heartbeat)();
        };
        Ok(Running::new(running.stop.unwrap(), heartbeat))
    };
    let child = ChildSpec { start: Box::new(start), ..child("store", "store", Arc::default()) };
    let bench = Bench::start(vec![group(Strategy::OneForOne, 0, vec![child])], vec![probe]);
    eventually("heartbeats", || asked.load(Ordering::SeqCst), |count| *count >= 60).await;
    assert_eq!(bench.generations(), [(true, 1)]);
}

#[actix::test]
async fn a_strike_hits_the_named_actor_and_only_where_it_is_allowed() {
    let bench = Bench::of_three(Strategy::OneForOne, false, 3);
    bench.wait_for_generations(&[1, 1, 1], "start").await;
    let strike = |actor: &str, name| Strike { actor: actor.into(), fault: Sabotage::by_name(name).unwrap() };
    for (index, fault) in ["panic", "hang", "stop"].into_iter().enumerate() {
        assert_eq!(bench.supervisor.send(strike(NAMES[index], fault)).await.unwrap(), Ok(()));
    }
    bench.wait_for_generations(&[2, 2, 2], "all struck").await;
    assert_eq!(bench.supervisor.send(strike("nobody", "stop")).await.unwrap(), Err(StrikeError::Unknown));
    bench.supervisor.send(Stop).await.unwrap();
    assert_eq!(bench.supervisor.send(strike("store", "stop")).await.unwrap(), Err(StrikeError::NotReachable));

    let spec = SupervisorSpec {
        groups: Vec::new(),
        heartbeat_interval: Duration::from_secs(1),
        state: SupervisorState::default(),
        metrics: Arc::clone(&bench.metrics),
        escalate: Box::new(|_| ()),
        allow_sabotage: false,
    };
    let refuses = Supervisor::new(spec).start();
    assert_eq!(refuses.send(strike("store", "stop")).await.unwrap(), Err(StrikeError::NotAllowed));
    refuses.send(Stop).await.unwrap();
}

#[actix::test]
async fn every_series_exists_before_the_first_restart() {
    let bench = Bench::of_three(Strategy::OneForOne, true, 3);
    let text = bench.metrics.encode().unwrap();
    for name in NAMES {
        for cause in Cause::ALL {
            let series = format!("dashstream_actor_restarts_total{{actor=\"{name}\",reason=\"{}\"}} 0", cause.as_str());
            assert!(text.contains(&series), "{series}");
        }
        assert!(text.contains(&format!("dashstream_actor_up{{actor=\"{name}\"}}")));
        assert!(text.contains(&format!("dashstream_actor_generation{{actor=\"{name}\"}}")));
    }
}
