fn main() -> std::process::ExitCode {
    triad::cli::main()
}
