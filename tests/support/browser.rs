//! A headless Chromium with one page, driven over the [Chrome DevTools Protocol].
//!
//! The protocol runs over two pipes: there is no port, and Chromium exits when the pipes close,
//! however this process ends.
//!
//! [Chrome DevTools Protocol]: https://chromedevtools.github.io/devtools-protocol/

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, geteuid},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
    time::{sleep, timeout},
};

use super::env;

/// The timeout for a response, the first of which includes Chromium's start, and for a page or an
/// element to appear.
const TIMEOUT_SECONDS: u64 = 30;

/// Chromium reads commands from descriptor 3 and writes responses to 4: a shell connects them to
/// stdin and stdout.
const SHELL: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

const FLAGS: [&str; 12] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // No internet access: a page that needs it fails on every machine, not only on those without a
    // connection.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
];

/// Chromium and its page.
pub struct Browser {
    process: Process,
    commands: ChildStdin,
    responses: BufReader<ChildStdout>,
    last_id: u64,
    /// The session of the page, once attached.
    session: Option<Value>,
    errors: Vec<String>,
}

impl Browser {
    /// Starts Chromium with an empty page and a new profile.
    pub async fn start() -> Self {
        let mut process = Process::start();
        let (stdin, stdout) = (process.child.stdin.take(), process.child.stdout.take());
        let commands = ChildStdin::from_std(stdin.expect("stdin is a pipe")).expect("a runtime");
        let responses = ChildStdout::from_std(stdout.expect("stdout is a pipe")).expect("a runtime");
        let mut browser = Self {
            process,
            commands,
            responses: BufReader::new(responses),
            last_id: 0,
            session: None,
            errors: Vec::new(),
        };
        let page = browser
            .command("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.command("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].clone());
        for domain in ["Log", "Page", "Runtime"] {
            browser.command(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Opens the URL and waits until it is loaded.
    pub async fn open(&mut self, url: &str) {
        let navigation = self.command("Page.navigate", json!({"url": url})).await;
        assert_eq!(navigation["errorText"], Value::Null, "{url} failed to open");
        self.wait_for(TIMEOUT_SECONDS, "document.readyState === 'complete'")
            .await;
    }

    /// The value of a JavaScript expression; of a promise, what it resolves to.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut response = self.command("Runtime.evaluate", parameters).await;
        let exception = &response["exceptionDetails"];
        assert_eq!(*exception, Value::Null, "{expression} throws");
        response["result"]["value"].take()
    }

    /// Waits, for at most `seconds`, until the JavaScript expression is neither false nor null;
    /// returns its value.
    pub async fn wait_for(&mut self, seconds: u64, expression: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let value = self.eval(expression).await;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            if Instant::now() > deadline {
                let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
                let path = Path::new("../target/tmp").join(format!("{test}.png"));
                self.screenshot(&path).await;
                panic!(
                    "not within {seconds} s: {expression}\nscreenshot: {}\nerrors: {:#?}",
                    path.display(),
                    self.errors
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Clicks the middle of the first element that matches the selector, once nothing covers it;
    /// again if the page moved the element away under the mouse.
    pub async fn click(&mut self, css: &str) {
        let css = json!(css);
        let aim = format!(
            "(() => {{
                const element = document.querySelector({css});
                element?.scrollIntoView({{ block: 'center', behavior: 'instant' }});
                const {{ x, y, width, height }} = element?.getBoundingClientRect() ?? {{}};
                const middle = {{ x: x + width / 2, y: y + height / 2 }};
                if (!element?.contains(document.elementFromPoint(middle.x, middle.y))) return null;
                window.hasMissed = false;
                window.stopMissedClick = (event) => {{
                    if (element.contains(event.target)) return;
                    window.hasMissed = true;
                    event.preventDefault();
                    event.stopImmediatePropagation();
                }};
                addEventListener('click', window.stopMissedClick, true);
                return middle;
            }})()"
        );
        let has_missed = "removeEventListener('click', window.stopMissedClick, true), window.hasMissed === true";
        let deadline = Instant::now() + Duration::from_secs(TIMEOUT_SECONDS);
        loop {
            let middle = self.wait_for(TIMEOUT_SECONDS, &aim).await;
            for event in ["mousePressed", "mouseReleased"] {
                let mouse =
                    json!({"type": event, "x": middle["x"], "y": middle["y"], "button": "left", "clickCount": 1});
                self.command("Input.dispatchMouseEvent", mouse).await;
            }
            if self.eval(has_missed).await == false {
                return;
            }
            assert!(Instant::now() < deadline, "{css} always moves away from the mouse");
        }
    }

    /// Clicks a text field and replaces its content.
    pub async fn type_into(&mut self, css: &str, text: &str) {
        self.click(css).await;
        self.eval("document.activeElement.select()").await;
        self.command("Input.insertText", json!({"text": text})).await;
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`, `Shift+Tab`.
    pub async fn press(&mut self, key: &str) {
        let (modifiers, key) = match key.strip_prefix("Shift+") {
            Some(key) => (8, key),
            None => (0, key),
        };
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            _ => panic!("{key} is not known"),
        };
        for event in ["keyDown", "keyUp"] {
            let text = if event == "keyDown" { text } else { "" };
            let press = json!({
                "type": event, "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers, "text": text,
            });
            self.command("Input.dispatchKeyEvent", press).await;
        }
    }

    /// Saves downloads in this folder.
    pub async fn download_to(&mut self, folder: &Path) {
        let folder = folder.canonicalize().expect("the folder exists");
        let allow = json!({"behavior": "allow", "downloadPath": folder});
        self.command("Browser.setDownloadBehavior", allow).await;
    }

    /// Sets the size of the window and the preferred color scheme.
    pub async fn set_viewport(&mut self, width: u32, height: u32, dark: bool) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", media).await;
    }

    /// Writes a screenshot of the window as PNG.
    pub async fn screenshot(&mut self, path: &Path) {
        let response = self.command("Page.captureScreenshot", json!({})).await;
        let image = STANDARD.decode(response["data"].as_str().expect("an image"));
        fs::write(path, image.expect("base64")).expect("the screenshot can be written");
    }

    /// The page's errors so far: `console.error`, uncaught exceptions, violations of its
    /// Content-Security-Policy, and resources that failed to load.
    pub async fn errors(&mut self) -> &[String] {
        // Chromium reports earlier events before it responds to this.
        self.eval("null").await;
        &self.errors
    }

    async fn command(&mut self, method: &str, parameters: Value) -> Value {
        let response = timeout(Duration::from_secs(TIMEOUT_SECONDS), self.send(method, parameters)).await;
        let Ok(Some(mut response)) = response else {
            panic!("Chromium did not respond to {method}; its log:\n{}", self.process.log());
        };
        assert_eq!(response["error"], Value::Null, "{method} failed");
        response["result"].take()
    }

    /// Sends a command and returns its response, or `None` if Chromium has exited. Messages end
    /// with a zero byte.
    async fn send(&mut self, method: &str, parameters: Value) -> Option<Value> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone();
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).await.ok()?;
        loop {
            let mut bytes = Vec::new();
            self.responses.read_until(0, &mut bytes).await.ok()?;
            bytes.pop()?;
            let message: Value = serde_json::from_slice(&bytes).expect("a JSON message");
            if message["id"] == self.last_id {
                return Some(message);
            }
            self.errors.extend(error_in(&message));
        }
    }
}

/// The error that an event reports.
fn error_in(event: &Value) -> Option<String> {
    let details = &event["params"];
    let error = match event["method"].as_str()? {
        "Runtime.exceptionThrown" => &details["exceptionDetails"],
        "Runtime.consoleAPICalled" if details["type"] == "error" => &details["args"],
        "Log.entryAdded" if details["entry"]["level"] == "error" => &details["entry"],
        _ => return None,
    };
    Some(error.to_string())
}

/// Chromium's processes and their files, removed on drop, even after a panic.
struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("chromium-{:016x}", fastrand::u64(..)));
        fs::create_dir(&folder).expect("a new folder");
        let mut command = Command::new("sh");
        command
            .args(["-c", SHELL, &env("CHROMIUM")])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", folder.display()));
        if geteuid().is_root() {
            // Chromium's sandbox does not work for root.
            command.arg("--no-sandbox");
        }
        let log = File::create(folder.join("log")).expect("a new file");
        let child = command
            // For files outside its profile.
            .envs([("HOME", &folder), ("TMPDIR", &folder)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Its own group, to kill all of Chromium's processes at once.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self { child, folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        killpg(group, Signal::SIGKILL).ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}
