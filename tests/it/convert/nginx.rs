//! A real nginx with a configuration of a test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Folder, eventually};

/// What a test's nginx keeps in its own folder, and not where the package would.
const OWN: &str = "http {
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi; access_log off;
";

/// A running nginx; it is killed when the test ends.
pub(crate) struct Nginx {
    /// Where it listens in place of port 80.
    pub(crate) clear: SocketAddr,
    /// Where it listens in place of port 443.
    pub(crate) tls: SocketAddr,
    child: Child,
    _folder: Folder,
}

/// Where `scripts/setup` has put it, or where the machine has it.
fn program() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/nginx/usr/sbin/nginx");
    let installed = PathBuf::from("/usr/sbin/nginx");
    [own, installed].into_iter().find(|path| path.exists()).unwrap_or_else(|| "nginx".into())
}

impl Nginx {
    /// Starts one with this configuration, whose ports 80 and 443 become free ones.
    pub(crate) fn start(folder: Folder, config: &str) -> Self {
        let mut folder = Some(folder);
        for _ in 0..5 {
            let ports = [free_port(), free_port()];
            let made = folder.take().expect("the folder");
            match Self::try_start(made, config, ports) {
                Ok(started) => return started,
                // Somebody else took a port meanwhile.
                Err(back) => folder = Some(back),
            }
        }
        let folder = folder.expect("the folder");
        panic!("nginx does not start:\n{}", errors(&folder));
    }

    fn try_start(folder: Folder, config: &str, [clear, tls]: [u16; 2]) -> Result<Self, Folder> {
        let lines = config.lines().filter(|line| !line.contains("listen [::]"));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let text = text
            .replace("listen 80", &format!("listen 127.0.0.1:{clear}"))
            .replace("listen 443", &format!("listen 127.0.0.1:{tls}"))
            .replacen("http {", OWN, 1);
        folder.write("nginx.conf", text);
        let prefix = folder.path().canonicalize().expect("the folder");
        let libraries = program()
            .parent()
            .and_then(Path::parent)
            .map(|usr| usr.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)));
        let mut child = Command::new(program())
            .args(["-g", "daemon off; master_process off; pid nginx.pid;", "-e", "error.log", "-c"])
            .arg(prefix.join("nginx.conf"))
            .arg("-p")
            .arg(&prefix)
            .env("LD_LIBRARY_PATH", libraries.unwrap_or_default())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed: run scripts/setup");
        let [clear, tls] = [clear, tls].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut ended = false;
        eventually("nginx listens", || {
            ended = matches!(child.try_wait(), Ok(Some(_)));
            ended || TcpStream::connect(clear).is_ok()
        });
        if ended { Err(folder) } else { Ok(Self { clear, tls, child, _folder: folder }) }
    }
}

fn errors(folder: &Folder) -> String {
    std::fs::read_to_string(folder.path().join("error.log")).unwrap_or_default()
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- nginx said:\n{}\n---", errors(&self._folder));
        }
    }
}

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}
