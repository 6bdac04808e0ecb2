//! A real browser: Chromium, driven by chromedriver as WebDriver says.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Client, eventually};

/// The member of an answer that names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// A browser starts slowly where many tests run.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The keys without a character, as WebDriver writes them.
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const TAB: &str = "\u{e004}";

/// A browser with one window; both end with the test. A test that fails leaves a screenshot, the
/// document and the console in `target/browser/`.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts one. `gw.test` and what is below it are names of this machine.
    pub(crate) fn start() -> Self {
        Self::start_with(false)
    }

    /// The same, which takes any certificate.
    pub(crate) fn start_without_authorities() -> Self {
        Self::start_with(true)
    }

    fn start_with(takes_any: bool) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver runs: apt-get install chromium chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().expect("its stdout")).lines();
        let port = lines.find_map(|line| {
            let line = line.expect("a line of chromedriver");
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver's port")));
        let options = json!({ "args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--host-resolver-rules=MAP gw.test 127.0.0.1, MAP *.gw.test 127.0.0.1",
        ] });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": takes_any,
            "goog:loggingPrefs": { "browser": "ALL" }, "goog:chromeOptions": options,
        } } });
        let mut browser = Self { driver, address, session: String::new() };
        let begun = browser.ask("POST", "/session", &wanted);
        browser.session = format!("/session/{}", begun["sessionId"].as_str().expect("a session"));
        browser
    }

    /// One command, and the `value` of its answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body)
            .unwrap_or_else(|error| panic!("the browser: {method} {path}: {error}"))
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let request = Client::request(self.address, method, path)
            .header("Host", self.address.to_string())
            .header("Content-Type", "application/json")
            .patience(START_PATIENCE);
        let request = if method == "POST" { request.body(body.to_string()) } else { request };
        let mut reply = request.try_send()?.json();
        let value = reply["value"].take();
        match value.get("error") {
            Some(error) => Err(format!("{error}: {}", value["message"])),
            None => Ok(value),
        }
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("{}{path}", self.session), body)
    }

    /// A command of Chromium's own.
    fn devtools(&self, name: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// Opens an address, also if only its fragment is another one.
    pub(crate) fn open(&self, url: &str) {
        self.command("/url", &json!({ "url": "about:blank" }));
        self.command("/url", &json!({ "url": url }));
    }

    /// Goes on in the page's first frame, until another address is opened.
    pub(crate) fn enter_frame(&self) {
        self.command("/frame", &json!({ "id": 0 }));
    }

    /// Runs the body of a function in the page; it may return a promise.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The cookies that it would send to the page.
    pub(crate) fn cookies(&self) -> Vec<Value> {
        let all = self.ask("GET", &format!("{}/cookie", self.session), &Value::Null);
        all.as_array().expect("a list").clone()
    }

    /// The text of the first element of a selector; nothing if there is none.
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.textContent ?? ''");
        self.run(&script).as_str().expect("a text").to_owned()
    }

    /// How many elements a selector has.
    pub(crate) fn count(&self, selector: &str) -> u64 {
        let script = format!("return document.querySelectorAll({selector:?}).length");
        self.run(&script).as_u64().expect("a number")
    }

    /// Waits until an element has this in its text.
    pub(crate) fn shows(&self, selector: &str, text: &str) {
        eventually(&format!("{selector} shows {text:?}"), || self.text(selector).contains(text));
    }

    /// Clicks the first element of a selector that has this text, as a mouse does: what is covered
    /// cannot be clicked. It is waited for.
    pub(crate) fn click(&self, selector: &str, text: &str) {
        let script = format!(
            "return [...document.querySelectorAll({selector:?})]\
             .find((it) => it.textContent.includes({text:?})) ?? null"
        );
        let mut found = Value::Null;
        eventually(&format!("there is {selector} {text:?}"), || {
            found = self.run(&script);
            !found.is_null()
        });
        let id = found[ELEMENT].as_str().expect("an element");
        self.command(&format!("/element/{id}/click"), &json!({}));
    }

    /// Presses the keys of a text one after the other.
    pub(crate) fn press(&self, keys: &str) {
        let presses: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": presses });
        self.command("/actions", &json!({ "actions": [keyboard] }));
    }

    /// Makes the page so large, in CSS pixels.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Sets the system's theme: `light` or `dark`.
    pub(crate) fn prefer(&self, theme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": theme });
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// What the console has said since this was asked last, without the statuses of answers.
    pub(crate) fn console(&self) -> Vec<String> {
        let said = self.command("/se/log", &json!({ "type": "browser" }));
        let said = said.as_array().expect("a list").iter();
        let own = said.filter(|entry| entry["source"] != "network");
        own.map(|entry| entry["message"].to_string()).collect()
    }

    /// What axe finds wrong with the page, one line for each rule.
    pub(crate) fn axe(&self) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run scripts/setup", path.display()));
        self.run(&axe);
        let found = self.run(
            "const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',
               'best-practice'];
             return axe.run(document, { runOnly: rules }).then(({ violations }) =>
               violations.map(({ id, nodes }) =>
                 `${id}: ${nodes.map((it) => it.html.slice(0, 120)).join(' | ')}`))",
        );
        let found = found.as_array().expect("a list").iter();
        found.map(|it| it.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A picture of the whole page, as PNG.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.devtools("Page.captureScreenshot", &whole);
        STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64")
    }

    /// Leaves what there is to see of a failed test.
    fn leave(&self) {
        let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/browser").join(test);
        let _ = std::fs::create_dir_all(&folder);
        let path = |rest: &str| format!("{}{rest}", self.session);
        let document = json!({ "script": "return document.documentElement.outerHTML", "args": [] });
        if let Ok(document) = self.try_ask("POST", &path("/execute/sync"), &document) {
            let _ = std::fs::write(folder.join("document.html"), document.as_str().unwrap_or(""));
        }
        let console = json!({ "type": "browser" });
        if let Ok(console) = self.try_ask("POST", &path("/se/log"), &console) {
            let _ = std::fs::write(folder.join("console.json"), console.to_string());
        }
        if let Ok(picture) = self.try_ask("GET", &path("/screenshot"), &Value::Null) {
            let bytes = STANDARD.decode(picture.as_str().unwrap_or("")).unwrap_or_default();
            let _ = std::fs::write(folder.join("screenshot.png"), bytes);
        }
        eprintln!("--- what the browser showed is in {}", folder.display());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            if std::thread::panicking() {
                self.leave();
            }
            // The browser ends with its session; without it, the driver would leave it behind.
            let _ = self.try_ask("DELETE", &self.session, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
