//! Ten thousand consumers that load late, crash, and begin with stale caches: confirmation beside waits of a fixed length.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::{env, fs};

use keydir::{Files, RevisionId};
use keydir_rotate::{Consumer, Holding, Now, Observed, Policy, Said, Set, State, Step, decide};

const CONSUMERS: usize = 10_000;
const MINUTE: u64 = 60;
/// The world is looked at so often; each consumer that runs verifies one token each time.
const TICK: u64 = 5;
/// How old a token may be that is verified.
const LIFE: u64 = MINUTE;
/// Most load a publication within this time,
const PROMPT: u64 = 90;
/// and one in so many is stuck, for ten minutes on average.
const STUCK_ONE_IN: u64 = 100;
const STUCK: f64 = 600.0;
/// Each crashes once in so many seconds, is down for a minute on average, and begins with something this old.
const CRASHES: u64 = 1_000_000;
const LAG: u64 = MINUTE;

/// SplitMix64, so that each run is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn exponential(&mut self, mean: f64) -> u64 {
        let uniform = ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        (-uniform.ln() * mean) as u64
    }

    fn delay(&mut self) -> u64 {
        match self.below(STUCK_ONE_IN) {
            0 => PROMPT + self.exponential(STUCK),
            _ => self.below(PROMPT),
        }
    }
}

/// One publication, and when it was made. Revisions by number.
struct Publication {
    id: String,
    at: u64,
    primary: u64,
    accepted: BTreeSet<u64>,
}

#[derive(Clone)]
struct Member {
    /// The number of a publication.
    loaded: usize,
    /// When it loads what is current then.
    loads: Option<u64>,
    /// Until when it is down.
    down: Option<u64>,
    /// What it presents, since when, and what it did before.
    presents: (u64, u64, u64),
}

impl Member {
    fn load(&mut self, number: usize, publication: &Publication, now: u64) {
        self.loaded = number;
        let (presented, ..) = self.presents;
        if presented != publication.primary {
            self.presents = (publication.primary, now, presented);
        }
    }

    fn made(&self, at: u64) -> u64 {
        let (now, since, before) = self.presents;
        if at < since { before } else { now }
    }
}

struct Simulation {
    random: Random,
    now: u64,
    publications: Vec<Publication>,
    members: Vec<Member>,
    files: Files,
    state: State,
}

/// What came of one rotation.
#[derive(Clone, Copy, Default)]
struct Outcome {
    verified: u64,
    refused: u64,
    /// From its beginning to its end, in seconds.
    took: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let id: RevisionId = "r1".parse().unwrap();
        let mut set = Set::new(Files::new(), None, 0);
        set.stage(&id, vec![("token".to_owned(), "1".into())]);
        set.promote(&id);
        set.request();
        let files = set.publish("0".to_owned());
        let member = Member {
            loaded: 0,
            loads: None,
            down: None,
            presents: (1, 0, 1),
        };
        Self {
            random: Random(seed),
            now: 10_000,
            publications: vec![published(&files, 0)],
            members: vec![member; CONSUMERS],
            state: State::of_files(&files).unwrap().unwrap(),
            files,
        }
    }

    /// A rotation, and what comes after it until all have loaded its end.
    fn run(mut self, policy: &Policy, with_reports: bool) -> Outcome {
        let begin = self.now;
        let mut outcome = Outcome::default();
        loop {
            self.now += TICK;
            self.members_live();
            self.members_meet(&mut outcome);
            match self.decide(policy, with_reports) {
                Some(step) => {
                    self.act(&step);
                    if matches!(step, Step::Retire(_)) {
                        outcome.took = self.now - begin;
                    }
                }
                None if outcome.took > 0 && self.now - begin > outcome.took + 10 * MINUTE => return outcome,
                None => {}
            }
        }
    }

    fn members_live(&mut self) {
        let last = self.publications.len() - 1;
        for member in &mut self.members {
            if self.random.below(CRASHES / TICK) == 0 && member.down.is_none() {
                member.down = Some(self.now + self.random.exponential(60.0));
                member.loads = None;
            }
            if member.down.is_some_and(|until| until <= self.now) {
                member.down = None;
                let then = self.now - self.random.below(LAG);
                let stale = self.publications.iter().rposition(|one| one.at <= then).unwrap();
                let publication = &self.publications[stale];
                member.load(stale, publication, self.now);
                member.loads = (stale < last).then(|| self.now + self.random.delay());
            }
            if member.loads.is_some_and(|at| at <= self.now) {
                member.loads = None;
                member.load(last, &self.publications[last], self.now);
            }
        }
    }

    /// Each verifies what another one has made not long ago.
    fn members_meet(&mut self, outcome: &mut Outcome) {
        for member in self.members.iter().filter(|member| member.down.is_none()) {
            let other = self.random.below(CONSUMERS as u64) as usize;
            let made = self.members[other].made(self.now - self.random.below(LIFE));
            outcome.verified += 1;
            outcome.refused += u64::from(!self.publications[member.loaded].accepted.contains(&made));
        }
    }

    fn decide(&self, policy: &Policy, with_reports: bool) -> Option<Step> {
        let said = |member: &Member| Said {
            checked: self.now,
            publication: Some(self.publications[member.loaded].id.clone()),
            ..Said::default()
        };
        let consumer = |member: &Member| Consumer {
            name: String::new(),
            said: member.down.is_none().then(|| said(member)),
        };
        let observed = Observed {
            holding: Holding::of_names(self.files.keys().map(String::as_str)),
            state: Some(self.state.clone()),
            consumers: match with_reports {
                true => self.members.iter().map(consumer).collect(),
                false => Vec::new(),
            },
            ..Observed::default()
        };
        let now = Now {
            wall: self.now,
            since_jump: None,
        };
        decide(policy, &observed, now).step().cloned()
    }

    fn act(&mut self, step: &Step) {
        let mut set = Set::new(self.files.clone(), Some(&self.state), self.now);
        match step {
            Step::Stage => set.stage(&"r2".parse().unwrap(), vec![("token".to_owned(), "2".into())]),
            Step::Promote(id) => set.promote(id),
            Step::Release(id) => set.release(id),
            Step::Retire(id) => set.remove(id),
            other => panic!("{other:?} is not of this world"),
        }
        self.files = set.publish(self.publications.len().to_string());
        self.state = State::of_files(&self.files).unwrap().unwrap();
        self.publications.push(published(&self.files, self.now));
        for member in &mut self.members {
            // Who is stuck already stays so.
            if member.down.is_none() && member.loads.is_none() {
                member.loads = Some(self.now + self.random.delay());
            }
        }
    }
}

fn published(files: &Files, at: u64) -> Publication {
    let holding = Holding::of_names(files.keys().map(String::as_str));
    let number = |id: &RevisionId| id.as_str()[1..].parse::<u64>().unwrap();
    let marked = holding.revisions.iter().find(|(_, held)| held.marked);
    Publication {
        id: State::of_files(files).unwrap().unwrap().publication,
        at,
        primary: number(marked.unwrap().0),
        accepted: holding.revisions.keys().map(number).collect(),
    }
}

fn rotate(propagation: u64, with_reports: bool) -> Outcome {
    let policy = Policy {
        propagation,
        overlap: LIFE,
        fresh: 300,
        ..Policy::default()
    };
    Simulation::new(7).run(&policy, with_reports)
}

/// Waits in minutes, and how many of a million tokens were refused with each.
fn plot(points: &[(u64, f64)]) -> String {
    let x = |minutes: u64| 70.0 + (minutes as f64).log2() * 85.0;
    let y = |rate: f64| 190.0 - (rate.max(0.1).log10() + 1.0) * 32.0;
    let mut svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 250\" font-family=\"sans-serif\" \
                   font-size=\"12\">\n<rect width=\"640\" height=\"250\" fill=\"#fff\"/>\n"
        .to_owned();
    for (rate, label) in [
        (0.1, "0"),
        (1.0, "1"),
        (10.0, "10"),
        (100.0, "100"),
        (1e3, "1000"),
        (1e4, "10000"),
    ] {
        let y = y(rate);
        writeln!(
            svg,
            "<path d=\"M70 {y:.0}H600\" stroke=\"#ddd\"/><text x=\"62\" y=\"{:.0}\" text-anchor=\"end\">{label}</text>",
            y + 4.0
        )
        .unwrap();
    }
    let line: Vec<String> = points
        .iter()
        .map(|(wait, rate)| format!("{:.0} {:.0}", x(*wait), y(*rate)))
        .collect();
    writeln!(
        svg,
        "<path d=\"M{}\" fill=\"none\" stroke=\"#c33\" stroke-width=\"2\"/>",
        line.join("L")
    )
    .unwrap();
    for (wait, rate) in points {
        let (x, y) = (x(*wait), y(*rate));
        writeln!(svg, "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"3\" fill=\"#c33\"/><text x=\"{x:.0}\" y=\"210\" text-anchor=\"middle\">{wait} min</text>").unwrap();
    }
    let base = y(0.1);
    writeln!(
        svg,
        "<path d=\"M70 {base:.0}H600\" stroke=\"#282\" stroke-width=\"2\"/>"
    )
    .unwrap();
    writeln!(
        svg,
        "<text x=\"600\" y=\"{:.0}\" text-anchor=\"end\" fill=\"#282\">with confirmation: 0</text>",
        base - 6.0
    )
    .unwrap();
    writeln!(
        svg,
        "<text x=\"70\" y=\"20\">tokens refused, of a million, by the length of a fixed wait</text>\n</svg>"
    )
    .unwrap();
    svg
}

#[test]
fn ten_thousand_consumers_confirm_or_are_waited_for() {
    println!("| wait | refused, of a million | rotation took |\n|---|---:|---:|");
    let minutes = |seconds: u64| seconds.div_ceil(MINUTE);
    let mut points = Vec::new();
    for wait in [1, 2, 5, 10, 20, 40, 60] {
        let outcome = rotate(wait * MINUTE, false);
        let rate = outcome.refused as f64 * 1e6 / outcome.verified as f64;
        println!("| {wait} min | {rate:.1} | {} min |", minutes(outcome.took));
        points.push((wait, rate));
    }
    let confirmed = rotate(2 * MINUTE, true);
    println!(
        "| confirmation | {} of {} | {} min |",
        confirmed.refused,
        confirmed.verified,
        minutes(confirmed.took)
    );
    assert_eq!(confirmed.refused, 0);
    let rates: Vec<f64> = points.iter().map(|(_, rate)| *rate).collect();
    assert!(
        rates[0] > 100.0 && rates[3] > 0.0 && rates[6] < rates[0] / 10.0,
        "{rates:?}"
    );
    if let Ok(path) = env::var("KEYDIR_PLOT") {
        fs::write(path, plot(&points)).unwrap();
    }
}
