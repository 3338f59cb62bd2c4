//! The `holdfast` command.

#[global_allocator]
static HEAP: holdfast::sys::Heap = holdfast::sys::Heap;

fn main() -> std::process::ExitCode {
    holdfast::cli::main()
}
