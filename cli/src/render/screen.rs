//! The terminal as a screen, for views that are drawn again and again.
//!
//! Whatever ends the program, an error or a panic too, gives the terminal back as it was. Absent: what is drawn.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    execute, queue,
    style::Print,
    terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};

use super::{
    output::Output,
    style::Style,
    text::{cut, width},
};

/// To look for input takes as long when there is none; with no time at all crossterm would not even look.
const INPUT_TIMEOUT: Duration = Duration::from_millis(1);

/// The alternate screen of the terminal, as long as this lives.
#[derive(Debug)]
pub(crate) struct Screen {
    output: Output,
}

impl Screen {
    /// # Errors
    /// Whatever the terminal refuses.
    pub(crate) fn open(output: Output) -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        // From here on the terminal is given back whatever happens.
        let mut screen = Self { output };
        execute!(screen.output, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Draws the lines that fit, and the last line of the screen below them.
    ///
    /// # Errors
    /// Whatever the terminal refuses.
    pub(crate) fn draw(&mut self, text: &str, footer: &str) -> io::Result<()> {
        let (columns, rows) = terminal::size()?;
        let room = usize::from(rows.saturating_sub(1));
        let lines: Vec<&str> = text.lines().collect();
        let is_cut = lines.len() > room;
        let shown = if is_cut { room.saturating_sub(1) } else { room };
        queue!(self.output, MoveTo(0, 0))?;
        for line in lines.iter().take(shown) {
            queue!(self.output, Print(line), Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        if is_cut {
            let more = format!("… {} more lines: a higher window shows them", lines.len() - shown);
            queue!(self.output, Print(cut(&more, columns.into())), Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        queue!(self.output, Clear(ClearType::FromCursorDown))?;
        let footer = cut(footer, usize::from(columns).saturating_sub(1));
        debug_assert!(width(&footer) < usize::from(columns.max(1)), "a full last line would scroll");
        let footer = Style::Dim.paint(&footer, self.output.look().is_colored);
        queue!(self.output, MoveTo(0, rows.saturating_sub(1)), Print(footer))?;
        self.output.flush()
    }

    /// Whether somebody has asked to end since this was last called, or changed the size of the window. Waits for next to nothing.
    ///
    /// # Errors
    /// Whatever the terminal refuses; its end, for one.
    pub(crate) fn input(&mut self) -> io::Result<Option<Input>> {
        let mut input = None;
        while event::poll(INPUT_TIMEOUT)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let is_control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if is_control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        return Ok(Some(Input::Quit));
                    }
                }
                Event::Resize(..) => input = Some(Input::Resized),
                _ => {}
            }
        }
        Ok(input)
    }
}

/// What somebody did at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Quit,
    Resized,
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        drop(execute!(self.output, Show, LeaveAlternateScreen));
        drop(terminal::disable_raw_mode());
    }
}
