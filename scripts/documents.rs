//! Man pages, shell completions and the commented configuration, made from the program itself.
//!
//! `cargo run --example documents -- DIR`; `scripts/package` puts them into the package.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;
use uproar::{cli, config};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: documents DIR")?;
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(cli::command().disable_help_subcommand(true), &man)?;
    for page in ["uproar.1", "uproar-serve.1"] {
        let path = man.join(page);
        let text = fs::read_to_string(&path)? + cli::MANUAL;
        fs::write(path, text)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli::completed_command(), "uproar", &completions)?;
    }
    fs::write(dir.join("uproar.toml"), config::commented_default())?;
    Ok(())
}
