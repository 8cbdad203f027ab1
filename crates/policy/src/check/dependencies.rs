//! Which rules need which: no circles, and no chain longer than a stack.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Path, Unit};
use crate::report::{Fault, code};

/// Deepest nesting of rules and expressions, the stack of an evaluation
/// ([`crate::evaluate::STACK`]) being made for it.
const DEEPEST: usize = 1_000;

/// What entering a rule costs, in steps of nesting.
const RULE: usize = 4;

/// The first circle or overlong chain that is found.
pub(super) fn fault(units: &[Unit]) -> Option<Fault> {
    let mut by_path: BTreeMap<&Path, Vec<usize>> = BTreeMap::new();
    for (index, unit) in units.iter().enumerate() {
        if let Some(path) = &unit.path {
            by_path.entry(path).or_default().push(index);
        }
    }
    let mut search = Search {
        units,
        by_path,
        states: vec![State::New; units.len()],
        chain: Vec::new(),
    };
    (0..units.len()).find_map(|index| search.depth(index, 0).err())
}

#[derive(Clone, Copy)]
enum State {
    New,
    Open,
    /// Finished, and this deep.
    Depth(usize),
}

struct Search<'a> {
    units: &'a [Unit],
    by_path: BTreeMap<&'a Path, Vec<usize>>,
    states: Vec<State>,
    chain: Vec<usize>,
}

impl Search<'_> {
    /// How deeply evaluating a unit nests, which is `above` deep itself.
    fn depth(&mut self, index: usize, above: usize) -> Result<usize, Fault> {
        let units = self.units;
        let (Some(unit), Some(&state)) = (units.get(index), self.states.get(index)) else {
            return Ok(0);
        };
        match state {
            State::Depth(depth) => return Ok(depth),
            State::Open => return Err(self.circle(index)),
            State::New => {}
        }
        // Also bounds the recursion of this very search.
        if above > DEEPEST {
            return Err(too_deep(unit));
        }
        self.set(index, State::Open);
        self.chain.push(index);
        let mut deepest = unit.depth;
        for (path, depth) in &unit.needs {
            for target in self.targets(path) {
                let below = self.depth(target, above.saturating_add(RULE + depth))?;
                deepest = deepest.max(depth.saturating_add(below));
            }
        }
        self.chain.pop();
        let depth = deepest.saturating_add(RULE);
        if depth > DEEPEST {
            return Err(too_deep(unit));
        }
        self.set(index, State::Depth(depth));
        Ok(depth)
    }

    fn set(&mut self, index: usize, state: State) {
        if let Some(slot) = self.states.get_mut(index) {
            *slot = state;
        }
    }

    /// Rules at a path, above it and below it.
    fn targets(&self, path: &Path) -> Vec<usize> {
        let above = (0..path.len()).filter_map(|length| {
            let start = path.get(..length)?.to_vec();
            self.by_path.get(&start)
        });
        let below = self
            .by_path
            .range::<Path, _>((Bound::Included(path), Bound::Unbounded))
            .take_while(|(other, _)| other.starts_with(path))
            .map(|(_, units)| units);
        above.chain(below).flatten().copied().collect()
    }

    fn circle(&self, index: usize) -> Fault {
        let start = self
            .chain
            .iter()
            .position(|&open| open == index)
            .unwrap_or_default();
        let circle = self.chain.get(start..).unwrap_or_default();
        let names: Vec<String> = circle
            .iter()
            .chain([&index])
            .filter_map(|&index| self.units.get(index))
            .filter_map(|unit| Some(format!("data.{}", unit.path.as_ref()?.join("."))))
            .collect();
        let (file, line) = self
            .units
            .get(index)
            .map_or(("", 0), |unit| (unit.file.as_str(), unit.line));
        let name = names.first().map_or("", String::as_str);
        let text = format!("rule {name} is recursive: {}", names.join(" -> "));
        Fault::new(file, line, code::RECURSION, text)
    }
}

fn too_deep(unit: &Unit) -> Fault {
    let text = format!("rules and expressions nest more than {DEEPEST} deep");
    Fault::new(&unit.file, unit.line, code::COMPILE, text)
}
