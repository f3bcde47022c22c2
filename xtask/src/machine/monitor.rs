//! A client for QEMU's monitor, which gives access to the machine's screen, memory, keys and buttons. It speaks QMP, in
//! which each command, answer and event is a line of JSON.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::keyboard;
use super::picture::Picture;

/// The time that QEMU has to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// The milliseconds, in the machine's time, for which a key is held down, and then released.
const HELD: u32 = 30;

/// The monitor of a machine.
#[derive(Debug)]
pub struct Monitor {
    answers: BufReader<TcpStream>,
    commands: TcpStream,
    /// The folder in which QEMU runs.
    dir: PathBuf,
}

impl Monitor {
    /// Talks to the monitor at the other end of `stream`, of a QEMU that runs in the folder `dir`.
    pub fn new(stream: TcpStream, dir: &Path) -> Result<Self> {
        stream.set_read_timeout(Some(ANSWER))?;
        let commands = stream.try_clone().context("cannot share the monitor")?;
        let mut monitor = Self { answers: BufReader::new(stream), commands, dir: dir.to_path_buf() };
        let greeting = monitor.line()?;
        ensure!(!greeting["QMP"].is_null(), "QEMU's monitor does not speak QMP; it says {greeting}");
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Has QEMU execute `command`, and returns its result.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.commands, "{line}").context("QEMU has ended")?;
        loop {
            let mut said = self.line()?;
            if let Some(error) = said.get("error") {
                bail!("QEMU refuses {line}: {}", error["desc"].as_str().unwrap_or("it does not say why"));
            }
            // A line that is neither an error nor a result is an event.
            if let Some(result) = said.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let count = self.answers.read_line(&mut line).context("QEMU's monitor does not answer")?;
        ensure!(count > 0, "QEMU has ended");
        serde_json::from_str(&line).with_context(|| format!("QEMU's monitor says {line:?}"))
    }

    /// Takes a picture of the screen.
    pub fn screenshot(&mut self) -> Result<Picture> {
        let bytes = self.through_file("screendump", json!({}))?;
        Picture::from_ppm(&bytes)
    }

    /// Reads physical memory, including what devices map there.
    pub fn physical(&mut self, address: u64, size: usize) -> Result<Vec<u8>> {
        let bytes = self.through_file("pmemsave", json!({ "val": address, "size": size }))?;
        ensure!(bytes.len() == size, "QEMU saves {} bytes of memory and not {size}", bytes.len());
        Ok(bytes)
    }

    /// Has QEMU write a file, and returns its content. QEMU runs in the machine's folder, so a bare file name is
    /// enough.
    fn through_file(&mut self, command: &str, mut arguments: Value) -> Result<Vec<u8>> {
        arguments["filename"] = command.into();
        self.execute(command, &arguments)?;
        let path = self.dir.join(command);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::remove_file(&path)?;
        Ok(bytes)
    }

    /// Presses keys at the same time. They have QEMU's names, such as `up`.
    pub fn press(&mut self, keys: &[&str]) -> Result<()> {
        let keys: Vec<_> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.execute("send-key", &json!({ "keys": keys, "hold-time": HELD }))?;
        Ok(())
    }

    /// Types a text.
    pub fn keys(&mut self, text: &str) -> Result<()> {
        for character in text.chars() {
            let keys = keyboard::keys(character);
            let keys = keys.with_context(|| format!("the keyboard has no key for {character:?}"))?;
            self.press(&keys.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Returns the state of the machine: `running`, `suspended`, or another of QEMU's words.
    pub fn status(&mut self) -> Result<String> {
        let said = self.execute("query-status", &json!({}))?;
        said["status"].as_str().map(str::to_owned).context("QEMU does not say which state the machine is in")
    }

    /// Puts a memory module of `mib` MiB into the machine's empty slot.
    pub fn add_memory(&mut self, mib: u64) -> Result<()> {
        let backend = json!({ "qom-type": "memory-backend-ram", "id": "added", "size": mib << 20 });
        self.execute("object-add", &backend)?;
        let module = json!({ "driver": "pc-dimm", "id": "module", "memdev": "added" });
        self.execute("device_add", &module).map(drop)
    }

    /// Makes a CPU report an uncorrected hardware error, which is a machine check. `global` becomes IA32_MCG_STATUS.
    pub fn machine_check(&mut self, cpu: u32, global: u64) -> Result<()> {
        // The error is valid, uncorrected and enabled, and the CPU's context is corrupt.
        const STATUS: u64 = 0xb200_0000_0000_0000;
        let line = format!("mce {cpu} 1 {STATUS:#x} {global:#x} 0 0");
        let said = self.execute("human-monitor-command", &json!({ "command-line": line }))?;
        ensure!(said.as_str().is_none_or(str::is_empty), "QEMU answers {said} to {line:?}");
        Ok(())
    }

    /// Returns the registers of a CPU, as QEMU prints them.
    pub fn registers(&mut self, cpu: u32) -> Result<String> {
        let arguments = json!({ "command-line": "info registers", "cpu-index": cpu });
        let said = self.execute("human-monitor-command", &arguments)?;
        said.as_str().map(str::to_owned).with_context(|| format!("QEMU answers {said} in place of registers"))
    }

    /// Presses the power button.
    pub fn power_button(&mut self) -> Result<()> {
        self.execute("system_powerdown", &json!({})).map(drop)
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> Result<()> {
        self.execute("system_reset", &json!({})).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Returns a monitor, and the thread of a QEMU that sends `lines` to it: the first as its greeting, and each other
    /// line as the answer to a command. The thread returns the commands that it has received.
    fn pair(dir: &Path, lines: &'static [&'static str]) -> (Result<Monitor>, thread::JoinHandle<Vec<Value>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let qemu = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut heard = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut all = Vec::new();
            for (index, line) in lines.iter().enumerate() {
                if index > 0 {
                    all.push(serde_json::from_str(&heard.next().unwrap().unwrap()).unwrap());
                }
                stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
            }
            all
        });
        (Monitor::new(stream, dir), qemu)
    }

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;
    const DONE: &str = r#"{"return": {}}"#;
    const DONE_LATE: &str = "{\"event\": \"RTC_CHANGE\", \"data\": {}}\n{\"return\": {}}";

    #[test]
    fn events_are_skipped_and_errors_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (monitor, qemu) = pair(
            dir.path(),
            &[
                GREETING,
                DONE,
                "{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"suspended\"}}",
                DONE_LATE,
                r#"{"error": {"class": "GenericError", "desc": "not now"}}"#,
            ],
        );
        let mut monitor = monitor.unwrap();
        assert_eq!(monitor.status().unwrap(), "suspended");
        monitor.power_button().unwrap();
        let error = monitor.power_button().unwrap_err().to_string();
        assert!(error.contains("system_powerdown") && error.ends_with(": not now"), "{error}");
        assert!(monitor.status().is_err(), "QEMU has ended");
        let heard = qemu.join().unwrap();
        let names: Vec<_> = heard.iter().map(|command| command["execute"].as_str().unwrap()).collect();
        assert_eq!(names, ["qmp_capabilities", "query-status", "system_powerdown", "system_powerdown"]);
    }

    #[test]
    fn a_monitor_that_does_not_speak_qmp_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(pair(dir.path(), &["QEMU 7.2.22 monitor"]).0.is_err());
        assert!(pair(dir.path(), &["{}"]).0.is_err());
    }

    #[test]
    fn files_have_bare_names_and_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("screendump"), b"P6\n1 1\n255\nabc").unwrap();
        fs::write(dir.path().join("pmemsave"), [1, 2, 3]).unwrap();
        let (monitor, qemu) = pair(dir.path(), &[GREETING, DONE, DONE_LATE, DONE]);
        let mut monitor = monitor.unwrap();
        assert_eq!(monitor.screenshot().unwrap().width(), 1);
        assert_eq!(monitor.physical(0xb8000, 3).unwrap(), [1, 2, 3]);
        let heard = qemu.join().unwrap();
        assert_eq!(heard[1]["arguments"], json!({ "filename": "screendump" }));
        assert_eq!(heard[2]["arguments"], json!({ "val": 0xb8000, "size": 3, "filename": "pmemsave" }));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_text_is_typed_key_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let (monitor, qemu) = pair(dir.path(), &[GREETING, DONE, DONE, DONE]);
        let mut monitor = monitor.unwrap();
        monitor.keys("R\n").unwrap();
        assert!(monitor.keys("\u{e9}").is_err());
        let heard = qemu.join().unwrap();
        let key = |name: &str| json!({ "type": "qcode", "data": name });
        assert_eq!(heard[1]["arguments"]["keys"], json!([key("shift"), key("r")]));
        assert_eq!(heard[2]["arguments"]["keys"], json!([key("ret")]));
    }
}
