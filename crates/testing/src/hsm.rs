//! Tokens of SoftHSM, and a module around it that can be slowed down and pulled out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::ca::{Issued, private_dir};
use crate::openssl::{require_tool, skip};
use crate::process::{Command, Exit};

/// The user's PIN of every token. No other text of a test looks like it.
pub const PIN: &str = "27182818284590";

/// Where distributions install SoftHSM's module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// A directory with tokens of SoftHSM, which goes away with it. Not the one of the system.
pub struct SoftHsm {
    directory: TempDir,
    util: PathBuf,
    module: PathBuf,
    keys: AtomicUsize,
}

impl SoftHsm {
    /// Without any token. `None` if SoftHSM is missing.
    pub fn new() -> Option<Self> {
        let util = require_tool("softhsm2-util")?;
        let Some(module) = MODULES.iter().map(PathBuf::from).find(|path| path.exists()) else {
            skip("SoftHSM's module is not where distributions install it");
            return None;
        };
        let hsm = Self {
            directory: private_dir(),
            util,
            module,
            keys: AtomicUsize::new(0),
        };
        fs::create_dir(hsm.tokens()).expect("a directory of the test");
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            hsm.tokens().display()
        );
        fs::write(hsm.configuration(), configuration).expect("a file of the test");
        Some(hsm)
    }

    /// With one token.
    pub fn with_token(label: &str) -> Option<Self> {
        let hsm = Self::new()?;
        hsm.add_token(label);
        Some(hsm)
    }

    /// Adds a token.
    pub fn add_token(&self, label: &str) {
        self.run(&[
            "--init-token",
            "--free",
            "--label",
            label,
            "--pin",
            PIN,
            "--so-pin",
            PIN,
        ]);
    }

    /// Puts both halves of a key pair on a token.
    pub fn import(&self, label: &str, key: &Issued) {
        let id = self.keys.fetch_add(1, Ordering::Relaxed);
        self.import_as(label, key, &format!("A{id:03}"));
    }

    /// Puts both halves of a key pair on a token, under this CKA_ID in hexadecimal.
    pub fn import_as(&self, label: &str, key: &Issued, id: &str) {
        let file = self.directory.path().join("import.pem");
        fs::write(&file, key.key_pem()).expect("a file of the test");
        let path = file.to_str().expect("plain");
        // The same identifier twice is a mistake to the tool, but not to a test.
        self.run(&[
            "--import", path, "--token", label, "--label", id, "--id", id, "--pin", PIN, "--force",
        ]);
        fs::remove_file(file).expect("a file of the test");
    }

    /// The module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// What SoftHSM finds its tokens by: the value of `SOFTHSM2_CONF`.
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }

    /// The directory that the tokens are in.
    pub fn tokens(&self) -> PathBuf {
        self.directory.path().join("tokens")
    }

    /// Takes all tokens away from under whoever uses them.
    pub fn pull_out(&self) {
        fs::rename(self.tokens(), self.pulled_out()).expect("the tokens are there");
    }

    /// Puts them back.
    pub fn put_back(&self) {
        fs::rename(self.pulled_out(), self.tokens()).expect("the tokens were pulled out");
    }

    fn pulled_out(&self) -> PathBuf {
        self.directory.path().join("pulled-out")
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(&self.util);
        command
            .args(arguments.iter().copied())
            .env("SOFTHSM2_CONF", self.configuration());
        let output = command.run();
        assert_eq!(output.exit, Exit::Code(0), "{} {}", output.stdout, output.stderr);
    }
}

/// A PKCS#11 module that hands everything on to SoftHSM, but can be told to be slow or to fail.
pub struct Wrapper {
    directory: TempDir,
}

/// Without any header: a function list is a version and pointers in the order of the standard
/// (PKCS#11 2.40, section 6.2), and all functions return a number.
const SOURCE: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long ulong;
enum { FUNCTIONS = 68, GET_FUNCTION_LIST = 3, OPEN_SESSION = 12, LOGIN = 18, SIGN = 43 };
struct list { struct { unsigned char major, minor; } version; void *functions[FUNCTIONS]; };

static struct list *real, own;

/* The number in a file of the test; 0 without one. */
static ulong told(const char *path) {
    ulong number = 0;
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%lu", &number) != 1) number = 0;
        fclose(file);
    }
    return number;
}

static ulong login(ulong session, ulong user, void *pin, ulong length) {
    ulong failure = told(LOGIN_FAIL);
    fprintf(stderr, "wrapper: login\n");
    if (failure) return failure;
    return ((ulong (*)(ulong, ulong, void *, ulong))real->functions[LOGIN])(session, user, pin, length);
}

static ulong open_session(ulong slot, ulong flags, void *application, void *notify, ulong *session) {
    ulong failure = told(FAIL);
    if (failure) return failure;
    return ((ulong (*)(ulong, ulong, void *, void *, ulong *))real->functions[OPEN_SESSION])
        (slot, flags, application, notify, session);
}

static ulong sign(ulong session, void *data, ulong length, void *signature, ulong *signature_length) {
    ulong failure = told(FAIL), delay = told(DELAY);
    if (failure) return failure;
    if (signature && delay) {
        struct timespec pause = { delay / 1000, delay % 1000 * 1000000 };
        nanosleep(&pause, NULL);
    }
    return ((ulong (*)(ulong, void *, ulong, void *, ulong *))real->functions[SIGN])
        (session, data, length, signature, signature_length);
}

ulong C_GetFunctionList(struct list **list) {
    FILE *needed = fopen(NEEDED, "r");
    if (!needed) return 5;
    fclose(needed);
    void *module = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
    if (!module) return 5;
    ulong (*get)(struct list **) = (ulong (*)(struct list **))dlsym(module, "C_GetFunctionList");
    ulong outcome = get(&real);
    if (outcome) return outcome;
    memcpy(&own, real, sizeof own);
    own.functions[GET_FUNCTION_LIST] = C_GetFunctionList;
    own.functions[OPEN_SESSION] = open_session;
    own.functions[LOGIN] = login;
    own.functions[SIGN] = sign;
    *list = &own;
    return 0;
}
"#;

impl Wrapper {
    /// Builds it around a module. `None` if there is no C compiler.
    pub fn around(module: &Path) -> Option<Self> {
        Self::needing(module, Path::new("/dev/null"))
    }

    /// Builds it around a module, so that it starts only if it can read a file.
    pub fn needing(module: &Path, file: &Path) -> Option<Self> {
        let compiler = require_tool("cc")?;
        let wrapper = Self {
            directory: private_dir(),
        };
        let source = wrapper.file("wrapper.c");
        fs::write(&source, SOURCE).expect("a file of the test");
        let define = |name: &str, path: &Path| format!("-D{name}=\"{}\"", path.display());
        let mut command = Command::new(compiler);
        command
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(wrapper.module())
            .arg(define("MODULE", module))
            .arg(define("NEEDED", file))
            .arg(define("DELAY", &wrapper.file("delay")))
            .arg(define("FAIL", &wrapper.file("fail")))
            .arg(define("LOGIN_FAIL", &wrapper.file("login-fail")))
            .arg(&source)
            .arg("-ldl");
        let output = command.run();
        assert_eq!(output.exit, Exit::Code(0), "{}", output.stderr);
        Some(wrapper)
    }

    /// The module.
    pub fn module(&self) -> PathBuf {
        self.file("libwrapper.so")
    }

    /// From now on each signature takes at least this long.
    pub fn delay(&self, time: Duration) {
        self.tell("delay", &time.as_millis().to_string());
    }

    /// From now on opening a session and signing fail with this code (CKR).
    pub fn fail(&self, code: u32) {
        self.tell("fail", &code.to_string());
    }

    /// From now on the PIN is refused with this code (CKR). The module says `wrapper: login` on
    /// standard error whenever it is shown one.
    pub fn refuse_pin(&self, code: u32) {
        self.tell("login-fail", &code.to_string());
    }

    /// Opening sessions and signing do not fail any more.
    pub fn recover(&self) {
        self.tell("fail", "0");
    }

    fn tell(&self, name: &str, text: &str) {
        // In one step: the module may be reading.
        let draft = self.file("draft");
        fs::write(&draft, text).expect("a file of the test");
        fs::rename(draft, self.file(name)).expect("a file of the test");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
