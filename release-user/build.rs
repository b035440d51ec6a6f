//! Compiles the kernel programs (`release-ebpf`) into `OUT_DIR/release`, so that plain
//! `cargo build` yields a complete binary.

#[path = "../release-ebpf/compile.rs"]
mod compile;

fn main() -> anyhow::Result<()> {
    compile::compile("release-ebpf", "../release-ebpf", &["../release-common"])
}
