//! Compiles the kernel program of the test rig (`tests/ebpf`) into `OUT_DIR/wire`.

#[path = "../release-ebpf/compile.rs"]
mod compile;

fn main() -> anyhow::Result<()> {
    compile::compile("release-tests-ebpf", "ebpf", &[])
}
