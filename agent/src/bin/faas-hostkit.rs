//! Host-side helper. Its commands live in `src/hostkit/`.

fn main() {
    eprintln!("usage: faas-hostkit <command> [args]");
    std::process::exit(2);
}
