//! Generates the protobuf types, without a system `protoc`, and the wire schema that the validator walks.

use std::fmt::Write as _;
use std::path::Path;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// The message whose wire schema is generated, with everything that it can contain.
const ROOT: &str = ".dashstream.v1.DashStreamMessage";

/// What every message in the root carries as its field 1; the validator relies on it.
const HEADER: &str = ".dashstream.v1.Header";

/// Field numbers index a table directly, so they have to stay small.
const MAX_FIELD_NUMBER: i32 = 255;

/// Names the commit: the variable where it is set, for builds without a repository; otherwise what is checked out here.
/// Builds for development do not ask: each commit would have everything compiled again.
fn name_commit() {
    println!("cargo:rerun-if-env-changed=GIT_COMMIT_SHA");
    let named = std::env::var("GIT_COMMIT_SHA").ok().filter(|name| !name.trim().is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(commit) = named.or_else(|| if is_release { checked_out() } else { None }) {
        println!("cargo:rustc-env=GIT_COMMIT_SHA={}", commit.split_whitespace().next().unwrap_or("unknown"));
    }
}

/// The commit of the repository whose top this is, if it is one and git is there.
fn checked_out() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Sources that lie somewhere in another repository are not of its commit.
    git(&["rev-parse", "--show-prefix"]).filter(String::is_empty)?;
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        // Where it lies differs between a repository and its worktrees. What does not exist would count as changed.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

/// Compiles what shows instances in scenarios another wall clock: a library to preload, which the program carries with it.
/// Empty where programs are not loaded that way.
fn compile_clock() -> Result<(), Box<dyn std::error::Error>> {
    const SOURCE: &str = "src/torture/clock.c";
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_preloaded = target("OS") == "linux"
        && target("ENV") == "gnu"
        && target("POINTER_WIDTH") == "64"
        && !target("FEATURE").split(',').any(|feature| feature == "crt-static");
    let library = Path::new(&std::env::var("OUT_DIR")?).join("clock.so");
    println!("cargo:rerun-if-changed={SOURCE}");
    if !is_preloaded {
        return Ok(std::fs::write(library, "")?);
    }
    let compiler = cc::Build::new().pic(true).opt_level(2).debug(false).warnings(true).try_get_compiler()?;
    let compiled = compiler.to_command().args(["-shared", "-o"]).arg(library).args([SOURCE, "-ldl"]).status()?;
    if compiled.success() { Ok(()) } else { Err(format!("{SOURCE} cannot be compiled: {compiled}").into()) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The fuzz targets are built by this file too, from their own folder, where there is no page.
    let proto = if Path::new("proto").is_dir() { "proto" } else { "../proto" };
    if Path::new("ui").is_dir() {
        // The page is built by npm and may be absent; what is embedded must be there as a folder.
        std::fs::create_dir_all("ui/dist")?;
        println!("cargo:rerun-if-changed=ui/dist");
    }
    // Nor are there scenarios.
    if Path::new("src/torture").is_dir() {
        compile_clock()?;
    }
    name_commit();
    println!("cargo:rerun-if-changed={proto}");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(["dashstream.proto", "stream.proto"], [proto])?;
    let schema = wire_schema(&descriptors)?;
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("wire_schema.rs"), schema)?;
    // Ordered maps: the same message always encodes to the same bytes.
    prost_build::Config::new()
        .bytes(["dashstream.stream.v2.Record.value"])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}

/// All message types by full name, nested ones (map entries are such) included.
fn collect<'a>(prefix: &str, messages: &'a [DescriptorProto], found: &mut Vec<(String, &'a DescriptorProto)>) {
    for message in messages {
        let name = format!("{prefix}.{}", message.name());
        collect(&name, &message.nested_type, found);
        found.push((name, message));
    }
}

/// The tables of every message reachable from [`ROOT`]: per message one entry per field number, from 0.
fn wire_schema(descriptors: &FileDescriptorSet) -> Result<String, String> {
    let mut known = Vec::new();
    for file in &descriptors.file {
        collect(&format!(".{}", file.package()), &file.message_type, &mut known);
    }
    let find = |name: &str| known.iter().find(|(n, _)| n == name).map(|(_, m)| *m).ok_or(format!("no message {name}"));
    let mut reached = vec![ROOT.to_owned()];
    let (mut tables, mut names) = (String::new(), String::new());
    let mut next = 0;
    while let Some(name) = reached.get(next).cloned() {
        next += 1;
        let message = find(&name)?;
        let highest = message.field.iter().map(FieldDescriptorProto::number).max().unwrap_or(0);
        if highest > MAX_FIELD_NUMBER {
            return Err(format!("{name}: field number {highest} is too large for a direct table"));
        }
        let mut row = vec!["Field::Unknown".to_owned(); usize::try_from(highest).unwrap_or(0) + 1];
        let mut named = vec![String::new(); row.len()];
        for field in &message.field {
            let kind = field_kind(field, &mut reached, &find)?;
            let number = usize::try_from(field.number()).map_err(|e| e.to_string())?;
            *row.get_mut(number).ok_or("a field number above the highest")? = kind;
            *named.get_mut(number).ok_or("a field number above the highest")? = field.name().to_owned();
        }
        writeln!(tables, "    // {name}\n    &[{}],", row.join(", ")).map_err(|e| e.to_string())?;
        writeln!(names, "    &{named:?},").map_err(|e| e.to_string())?;
    }
    for field in &find(ROOT)?.field {
        let header = find(field.type_name())?.field.iter().find(|inner| inner.number() == 1);
        if header.is_none_or(|header| header.type_name() != HEADER) {
            return Err(format!("{}: field 1 has to be the header", field.type_name()));
        }
    }
    let mut out = format!("pub(super) static MESSAGES: [&[Field]; {}] = [\n{tables}];\n", reached.len());
    writeln!(out, "pub(super) static NAMES: [&[&str]; {}] = [\n{names}];", reached.len()).map_err(|e| e.to_string())?;
    for (constant, name) in
        [("ROOT", "DashStreamMessage"), ("HEADER", "Header"), ("EVENT", "Event"), ("EVENT_BATCH", "EventBatch")]
    {
        let index = reached.iter().position(|n| *n == format!(".dashstream.v1.{name}"));
        let index = index.ok_or(format!("{name} is not reachable"))?;
        writeln!(out, "pub(super) const {constant}: u8 = {index};").map_err(|e| e.to_string())?;
    }
    Ok(out)
}

/// The `Field` expression of one field; message types are queued in `reached`.
fn field_kind<'a>(
    field: &FieldDescriptorProto,
    reached: &mut Vec<String>,
    find: &impl Fn(&str) -> Result<&'a DescriptorProto, String>,
) -> Result<String, String> {
    let repeated = field.label() == Label::Repeated;
    let scalar = |kind: &str| format!("Field::{}{kind}", if repeated { "Repeated" } else { "" });
    Ok(match field.r#type() {
        Type::Int32
        | Type::Int64
        | Type::Uint32
        | Type::Uint64
        | Type::Sint32
        | Type::Sint64
        | Type::Bool
        | Type::Enum => scalar("Varint"),
        Type::Fixed32 | Type::Sfixed32 | Type::Float => scalar("Fixed32"),
        Type::Fixed64 | Type::Sfixed64 | Type::Double => scalar("Fixed64"),
        Type::String => "Field::String".to_owned(),
        Type::Bytes => "Field::Bytes".to_owned(),
        Type::Message => {
            let name = field.type_name();
            let index = reached.iter().position(|n| n == name).unwrap_or_else(|| {
                reached.push(name.to_owned());
                reached.len() - 1
            });
            let map = find(name)?.options.as_ref().is_some_and(|options| options.map_entry());
            format!(
                "Field::{}({})",
                if map { "Map" } else { "Message" },
                u8::try_from(index).map_err(|e| e.to_string())?
            )
        }
        Type::Group => return Err(format!("{}: groups are not supported", field.name())),
    })
}
