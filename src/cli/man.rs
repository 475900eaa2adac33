use std::io;

use clap::{Args, CommandFactory};

use super::{
    Cli,
    output::{Exit, print},
};

/// Prints the manual page
#[derive(Debug, Args)]
pub struct Man {}

impl Man {
    pub fn run(self) -> Exit {
        print(page());
        Exit::Success
    }
}

/// The manual page: the command and all of its subcommands.
fn page() -> String {
    let mut text = Vec::new();
    write(&mut text).expect("a Vec takes all that is written");
    String::from_utf8_lossy(&text).into_owned()
}

fn write(text: &mut Vec<u8>) -> io::Result<()> {
    let mut command = Cli::command();
    command.build();
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(text)?;
    page.render_name_section(text)?;
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    for sub in command.get_subcommands() {
        let title = format!("portolan {}", sub.get_name()).to_uppercase();
        let part = clap_mangen::Man::new(sub.clone().display_name(format!("portolan {}", sub.get_name())));
        let mut body = Vec::new();
        part.render_synopsis_section(&mut body)?;
        part.render_description_section(&mut body)?;
        part.render_options_section(&mut body)?;
        text.extend_from_slice(format!(".SH \"{title}\"\n").as_bytes());
        text.extend_from_slice(demoted(&String::from_utf8_lossy(&body)).as_bytes());
    }
    page.render_extra_section(text)?;
    page.render_version_section(text)
}

/// A section of a page of its own becomes a part of a section; what a page begins with goes.
fn demoted(body: &str) -> String {
    let preamble = |line: &&str| line.starts_with(".ie ") || line.starts_with(".el ");
    let lines = body.lines().filter(|line| !preamble(line));
    lines.map(|line| line.replacen(".SH ", ".SS ", 1) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_committed_page_is_not_stale() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/portolan.1");
        if env::var_os("PORTOLAN_UPDATE").is_some() {
            fs::write(&path, page()).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, page(), "write it again: PORTOLAN_UPDATE=1 cargo test");
    }

    #[test]
    fn every_command_is_in_it() {
        let page = page();
        for command in Cli::command().get_subcommands() {
            let title = format!("PORTOLAN {}", command.get_name().to_uppercase());
            assert!(page.contains(&title), "{title}");
        }
    }
}
