//! Names for what a report has addresses of: demangled functions, files, lines, and the functions that are inlined there.

use addr2line::{Loader, demangle_auto};
use calque_runtime::profile::report::{Function, Module, Report};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

/// A source line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Line {
    pub(super) file: String,
    pub(super) line: u32,
}

/// Debug information of the modules, read when it is first needed.
pub(super) struct Sources<'a> {
    modules: &'a [Module],
    loaders: Vec<OnceCell<Option<Loader>>>,
}

impl<'a> Sources<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let loaders = report.modules.iter().map(|_| OnceCell::new()).collect();
        Self { modules: &report.modules, loaders }
    }

    fn loader(&self, module: Option<u32>, pc: u64) -> Option<(&Loader, u64)> {
        let number = module? as usize;
        let module = &self.modules[number];
        let file = module.debug_file.as_ref().unwrap_or(&module.path);
        let loader = self.loaders[number].get_or_init(|| Loader::new(file).ok());
        Some((loader.as_ref()?, pc.wrapping_sub(module.bias)))
    }

    /// The line that the instruction at `pc` was made from.
    pub(super) fn line(&self, module: Option<u32>, pc: u64) -> Option<Line> {
        let (loader, at) = self.loader(module, pc)?;
        let location = loader.find_location(at).ok().flatten()?;
        Some(Line { file: location.file?.to_owned(), line: location.line.unwrap_or(0) })
    }

    /// The functions that are inlined at `pc`, outermost first; none if the instruction is the function's own.
    pub(super) fn inlined(&self, module: Option<u32>, pc: u64) -> Vec<String> {
        let Some((loader, at)) = self.loader(module, pc) else { return Vec::new() };
        let Ok(mut frames) = loader.find_frames(at) else { return Vec::new() };
        let mut names = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.and_then(|f| f.demangle().map(Cow::into_owned).ok());
            names.push(name.unwrap_or_else(|| "???".to_owned()));
        }
        // The last is the function itself.
        names.pop();
        names.reverse();
        names
    }
}

/// What a function is called: its demangled name, or module and address.
pub(super) fn function(report: &Report, function: &Function) -> String {
    if let Some(name) = &function.name {
        // Versions (`memcpy@@GLIBC_2.14`) are not part of the name.
        let name = name.split_once('@').map_or(name.as_str(), |(name, _)| name);
        return demangle_auto(Cow::Borrowed(name), None).into_owned();
    }
    match function.module {
        Some(number) => {
            let module = &report.modules[number as usize];
            format!("{}+{:#x}", file_name(module), function.start.wrapping_sub(module.bias))
        }
        None if function.start == 0 => "(no function)".to_owned(),
        None => format!("{:#x}", function.start),
    }
}

/// Names of all functions; equal names of different functions of a file stay equal.
pub(super) fn functions(report: &Report) -> Vec<String> {
    let mut known: HashMap<&str, String> = HashMap::new();
    let name = |f: &'_ Function| function(report, f);
    report
        .functions
        .iter()
        .map(|f| match &f.name {
            Some(raw) => known.entry(raw).or_insert_with(|| name(f)).clone(),
            None => name(f),
        })
        .collect()
}

/// A module's name without its directory.
pub(super) fn file_name(module: &Module) -> String {
    module.path.file_name().unwrap_or(module.path.as_os_str()).to_string_lossy().into_owned()
}
