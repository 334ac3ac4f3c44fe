//! `--emit`: what translations are made of, as text, and the same for `calque lift`.
//!
//! Nothing here is on the way of a run that does not ask for it: with `--emit` a region is compiled a second time, for its
//! listing.

use crate::memory::GuestMap;
use crate::smc::GuestCode;
use crate::symbols::Symbols;
use calque_backend::{CompileOptions, Compiler};
use calque_frontend::CodeReader;
use calque_frontend::decode::{Decoded, MAX_INSN, Window};
use calque_ir::{GuestAddr, Region};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

/// A form that code takes on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Guest assembly.
    Asm,
    /// IR as lifted.
    Ir,
    /// IR after the passes.
    Opt,
    /// Cranelift's IR.
    Clif,
    /// Host assembly.
    Host,
}

impl Form {
    /// Every form, in the order in which code takes them.
    pub const ALL: [Form; 5] = [Form::Asm, Form::Ir, Form::Opt, Form::Clif, Form::Host];

    /// The name that `--emit` takes.
    pub fn name(self) -> &'static str {
        match self {
            Form::Asm => "asm",
            Form::Ir => "ir",
            Form::Opt => "opt",
            Form::Clif => "clif",
            Form::Host => "host",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Form::Asm => "x86-64",
            Form::Ir => "IR, as lifted",
            Form::Opt => "IR, optimised",
            Form::Clif => "CLIF",
            Form::Host => "host",
        }
    }
}

/// Which translations to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    All,
    /// The one that holds this guest address.
    Pc(GuestAddr),
    /// Those of this function, by its demangled name.
    Function(String),
}

/// What `--emit` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emit {
    pub forms: Vec<Form>,
    pub which: Which,
    /// The file that the text is appended to; stderr without one.
    pub to: Option<PathBuf>,
}

impl Emit {
    /// Reads `asm,ir,opt,clif,host[=PC|SYMBOL]`; forms that are not needed may be left out.
    pub fn parse(text: &str) -> Result<Emit, String> {
        let (names, which) = match text.split_once('=') {
            None => (text, Which::All),
            Some((names, place)) => match place.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16)) {
                Some(Ok(pc)) => (names, Which::Pc(GuestAddr(pc))),
                Some(Err(_)) => return Err(format!("'{place}' is not an address")),
                None => (names, Which::Function(place.to_owned())),
            },
        };
        let form = |name: &str| {
            let known = Form::ALL.into_iter().find(|f| f.name() == name);
            known.ok_or_else(|| format!("'{name}' is none of asm, ir, opt, clif, host"))
        };
        let forms = names.split(',').map(form).collect::<Result<_, _>>()?;
        Ok(Emit { forms, which, to: None })
    }

    /// Shows a region that has just been lifted and optimised, if it is one that was asked for.
    pub(crate) fn region(
        &self,
        map: &GuestMap,
        lifted: &Region,
        optimised: &Region,
        compiler: &mut Compiler,
        options: &CompileOptions,
    ) {
        let place = Symbols::new(map).place(lifted.pc());
        let wanted = match &self.which {
            Which::All => true,
            Which::Pc(pc) => {
                lifted.source.iter().any(|(start, len)| (start.0..start.0 + u64::from(*len)).contains(&pc.0))
            }
            Which::Function(name) => place.function.as_ref().is_some_and(|(function, _)| function == name),
        };
        if !wanted {
            return;
        }
        let source: String =
            lifted.source.iter().map(|(start, len)| assembly(&GuestCode::new(map), *start, *len)).collect();
        let text = sections(&self.forms, &source, lifted, optimised, compiler, options).unwrap_or_else(|e| e);
        self.write(&format!("=== {} {place}\n{text}", lifted.pc()));
    }

    /// One write for one region, so that texts of several threads do not mix.
    fn write(&self, text: &str) {
        match self.to.as_ref().map(|file| File::options().append(true).create(true).open(file)) {
            None => eprint!("{text}"),
            // A file that cannot be written must not end the guest.
            Some(file) => drop(file.and_then(|mut file| file.write_all(text.as_bytes()))),
        }
    }
}

impl fmt::Display for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.forms.iter().map(|form| form.name()).collect::<Vec<_>>().join(","))?;
        match &self.which {
            Which::All => Ok(()),
            Which::Pc(pc) => write!(f, "={pc}"),
            Which::Function(name) => write!(f, "={name}"),
        }
    }
}

/// The chosen forms of a region, each under a title; `source` is its guest assembly.
pub fn sections(
    forms: &[Form],
    source: &str,
    lifted: &Region,
    optimised: &Region,
    compiler: &mut Compiler,
    options: &CompileOptions,
) -> Result<String, String> {
    let compiles = forms.iter().any(|f| matches!(f, Form::Clif | Form::Host));
    let listing = if compiles { Some(compiler.explain(optimised, options).map_err(|e| e.to_string())?) } else { None };
    let mut text = String::new();
    for form in Form::ALL.into_iter().filter(|f| forms.contains(f)) {
        let (body, note) = match (form, &listing) {
            (Form::Asm, _) => (source.to_owned(), String::new()),
            (Form::Ir, _) => (lifted.to_string(), String::new()),
            (Form::Opt, _) => (optimised.to_string(), String::new()),
            (Form::Clif, Some((_, listing))) => (listing.clif.clone(), String::new()),
            (_, Some((code, listing))) => {
                (listing.host.clone(), format!(": {}, {} bytes", compiler.host().arch.name(), code.code.len()))
            }
            (_, None) => continue,
        };
        let _ = writeln!(text, "--- {}{note}\n{}\n", form.title(), body.trim_end());
    }
    Ok(text)
}

/// Address, bytes and instruction, one a line, of the `len` bytes at `pc`.
pub fn assembly(code: &dyn CodeReader, pc: GuestAddr, len: u32) -> String {
    let (end, mut text) = (pc.0 + u64::from(len), String::new());
    Window::<32>::new().walk(code, pc, |what, insn| {
        let at = GuestAddr(insn.ip());
        if at.0 >= end || what == Decoded::Unfetchable {
            return false;
        }
        let mut bytes = [0; MAX_INSN];
        let read = code.read(at, &mut bytes);
        let raw: Vec<String> = bytes[..read.min(insn.len().max(1))].iter().map(|b| format!("{b:02x}")).collect();
        let words = if what == Decoded::Insn { insn.to_string() } else { "(no instruction)".to_owned() };
        let _ = writeln!(text, "{at}:  {:30}  {words}", raw.join(" "));
        what == Decoded::Insn
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in ["asm", "asm,ir,opt,clif,host", "ir=0x401000", "host=main"] {
            assert_eq!(Emit::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "asm,", "clif,hots", "ir=0xzz"] {
            assert!(Emit::parse(bad).is_err(), "{bad}");
        }
    }
}
