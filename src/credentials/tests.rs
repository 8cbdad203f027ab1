//! Loading and renewing credentials from real files.

mod keystores;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;

/// What a certificate authority hands out, as PEM.
struct Issued {
    certificate: String,
    key: String,
    authority: String,
}

/// What operators' tools match comes first, what helps the operator may follow.
#[track_caller]
fn assert_begins(failure: &str, expected: &str, case: &str) {
    let advice = failure.strip_prefix(expected);
    assert!(
        advice.is_some_and(|advice| advice.starts_with("; ")
            || advice.starts_with(" (in ")
            || advice.is_empty()),
        "{case}: {failure}"
    );
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(vec![format!("{name}.test")]).expect("a DNS name");
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

fn issue(name: &str) -> Issued {
    issue_with(parameters(name), &KeyPair::generate().expect("key"))
}

fn issue_with(parameters: CertificateParams, key: &KeyPair) -> Issued {
    let mut authority = self::parameters("authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("key");
    let authority = CertifiedIssuer::self_signed(authority, authority_key).expect("authority");
    Issued {
        certificate: parameters.signed_by(key, &authority).expect("certificate").pem(),
        key: key.serialize_pem(),
        authority: authority.pem(),
    }
}

fn block(label: &str, base64: &str) -> String {
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

/// A directory with a certificate, its key and a CA bundle.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("temporary directory"),
        }
    }

    fn with(issued: &Issued) -> Self {
        let files = Self::new();
        files.write("cert.pem", &issued.certificate);
        files.write("key.pem", &issued.key);
        files.write("ca.pem", &issued.authority);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("write");
        path
    }

    fn pair(&self) -> Selection {
        Selection {
            identity: Identity::Pair {
                cert: self.path("cert.pem"),
                key: self.path("key.pem"),
                password: Password::None,
            },
            trust: Trust::Bundle(self.path("ca.pem")),
        }
    }

    fn keystore(&self, name: &str) -> Selection {
        Selection {
            identity: Identity::Keystore {
                path: self.path(name),
                password: Password::None,
            },
            trust: Trust::Bundle(self.path("ca.pem")),
        }
    }

    fn anonymous(&self) -> Selection {
        Selection {
            identity: Identity::None,
            trust: Trust::Bundle(self.path("ca.pem")),
        }
    }

    /// The error's text, with the directory's name cut out.
    fn failure(&self, selection: &Selection) -> String {
        let error = Store::load(selection).expect_err("a file is no good");
        error
            .to_string()
            .replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn subject(store: &Store) -> String {
    store
        .current()
        .identity()
        .expect("an identity")
        .subject()
        .to_owned()
}

#[test]
fn pair_is_loaded() {
    let issued = issue("server");
    let store = Store::load(&Files::with(&issued).pair()).expect("good files");
    assert_eq!(subject(&store), "CN=server");
    assert_eq!(
        store.start_line(),
        "using cert/key files on disk as certificate source"
    );
    let current = store.current();
    assert_eq!(current.warnings(), []);
    assert_eq!(current.generation(), 1);
    assert_eq!(current.anchors().certificates().len(), 1);
    let identity = current.identity().expect("an identity");
    assert_eq!(identity.chain(), identity.certified_key().cert);
}

#[test]
fn keystore_may_hold_blocks_in_any_order_and_text_between() {
    let Issued {
        certificate,
        key,
        authority,
    } = issue("server");
    let files = Files::new();
    files.write("ca.pem", &authority);
    files.write(
        "store.pem",
        format!("Bag Attributes\r\n{key}subject=x\n{certificate}{authority}"),
    );
    let store = Store::load(&files.keystore("store.pem")).expect("good keystore");
    assert_eq!(subject(&store), "CN=server");
    assert_eq!(store.current().identity().expect("an identity").chain().len(), 2);
    assert_eq!(
        store.start_line(),
        "using keystore file on disk as certificate source"
    );
}

#[test]
fn keystore_without_known_name_is_judged_by_its_first_bytes() {
    let Issued {
        certificate,
        key,
        authority,
    } = issue("server");
    let files = Files::new();
    files.write("ca.pem", &authority);
    files.write("store", format!("{certificate}{key}"));
    Store::load(&files.keystore("store")).expect("PEM without a name");
}

#[test]
fn no_certificate_needs_trust_anchors_only() {
    let files = Files::with(&issue("unused"));
    let store = Store::load(&files.anonymous()).expect("good bundle");
    assert!(store.current().identity().is_none());
    assert_eq!(
        store.start_line(),
        "no cert source configured -- running without certificate"
    );
}

#[test]
fn pair_failures_read_as_in_the_original() {
    let Issued { certificate, key, .. } = issue("server");
    let other = issue("other");
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519)
        .expect("key")
        .serialize_pem();
    let broken_certificate = block("CERTIFICATE", "!!!!");
    let malformed = block("CERTIFICATE", "AAAA");
    let bad_key = block("PRIVATE KEY", "AAAA");
    let x509 = certificate.replace("CERTIFICATE", "X509 CERTIFICATE");
    const SWITCHED: &str = "parsing X509 key pair: tls: failed to find certificate PEM data in certificate \
        input, but did find a private key; PEM inputs may have been switched";
    for (case, cert, key, expected) in [
        (
            "empty certificate",
            "",
            &*key,
            "reading certificate file \"cert.pem\": error reading file 'cert.pem', no certificates found",
        ),
        (
            "empty key",
            &certificate,
            "",
            "reading certificate file \"key.pem\": error reading file 'key.pem', no certificates found",
        ),
        (
            "both broken",
            &broken_certificate,
            "",
            "reading certificate file \"cert.pem\": error reading file 'cert.pem', no certificates found",
        ),
        (
            "a key for a certificate",
            &key,
            &other.key,
            "parsing X509 key pair: tls: failed to find \"CERTIFICATE\" PEM block in certificate input after \
             skipping PEM blocks of the following types: [PRIVATE KEY PRIVATE KEY]",
        ),
        (
            "other label",
            &x509,
            &key,
            "parsing X509 key pair: tls: failed to find \"CERTIFICATE\" PEM block in certificate input after \
             skipping PEM blocks of the following types: [X509 CERTIFICATE PRIVATE KEY]",
        ),
        (
            "two certificates",
            &certificate,
            &certificate,
            "parsing X509 key pair: tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key \
             input after skipping PEM blocks of the following types: [CERTIFICATE CERTIFICATE]",
        ),
        (
            "malformed leaf comes before bad key",
            &malformed,
            &bad_key,
            "parsing X509 key pair: x509: malformed certificate",
        ),
        (
            "unparsable key",
            &certificate,
            &bad_key,
            "parsing X509 key pair: tls: failed to parse private key",
        ),
        (
            "other kind of key",
            &certificate,
            &ed25519,
            "parsing X509 key pair: tls: private key type does not match public key type",
        ),
        (
            "other key",
            &certificate,
            &other.key,
            "parsing X509 key pair: tls: private key does not match public key",
        ),
    ] {
        let files = Files::new();
        files.write("cert.pem", cert);
        files.write("key.pem", key);
        assert_begins(&files.failure(&files.pair()), expected, case);
    }

    // A single file in the place of a pair, so that one block is left.
    let files = Files::new();
    for (contents, expected) in [
        (key.clone(), SWITCHED),
        (broken_certificate + &key, SWITCHED),
        (
            certificate.clone() + &block("PRIVATE KEY", "!!!!"),
            "parsing X509 key pair: tls: found a certificate rather than a key in the PEM for the private key",
        ),
    ] {
        files.write("store.pem", contents);
        assert_begins(
            &files.failure(&files.keystore("store.pem")),
            expected,
            "store.pem",
        );
    }
}

#[test]
fn encrypted_key_is_named_as_such() {
    let files = Files::with(&issue("server"));
    files.write("key.pem", block("ENCRYPTED PRIVATE KEY", "AAAA"));
    let failure = files.failure(&files.pair());
    assert!(
        failure.starts_with("parsing X509 key pair: tls: failed to parse private key; it is encrypted"),
        "{failure}"
    );
}

#[test]
fn missing_files_and_directories_read_as_in_the_original() {
    let files = Files::with(&issue("server"));
    let selection = files.pair();
    fs::remove_file(files.path("key.pem")).expect("remove");
    assert_begins(
        &files.failure(&selection),
        "reading certificate file \"key.pem\": open key.pem: no such file or directory",
        "file",
    );
    fs::remove_file(files.path("cert.pem")).expect("remove");
    assert_begins(
        &files.failure(&selection),
        "reading certificate file \"cert.pem\": open cert.pem: no such file or directory",
        "file",
    );
    fs::create_dir(files.path("cert.pem")).expect("create");
    assert_begins(
        &files.failure(&selection),
        "reading certificate file \"cert.pem\": failed to parse 'cert.pem': error reading PEM data: \
         read cert.pem: is a directory",
        "file",
    );
}

#[test]
fn keystore_failures_read_as_in_the_original() {
    let files = Files::new();
    fs::create_dir(files.path("directory")).expect("create");
    files.write("empty", "");
    files.write("empty.pem", "");
    files.write("commented", "Bag Attributes\n");
    for (name, expected) in [
        (
            "missing",
            "reading certificate file \"missing\": open missing: no such file or directory",
        ),
        (
            "directory",
            "reading certificate file \"directory\": failed to detect format for 'directory': \
             unable to read file: read directory: is a directory",
        ),
        (
            "empty",
            "reading certificate file \"empty\": failed to detect format for 'empty': unable to read file: EOF",
        ),
        (
            "empty.pem",
            "reading certificate file \"empty.pem\": error reading file 'empty.pem', no certificates found",
        ),
    ] {
        assert_begins(&files.failure(&files.keystore(name)), expected, name);
    }
    let failure = files.failure(&files.keystore("commented"));
    let expected = "reading certificate file \"commented\": failed to detect format for 'commented': \
                    unable to guess file format";
    assert!(failure.starts_with(expected), "{failure}");
}

#[test]
fn trust_store_failures_read_as_in_the_original() {
    let issued = issue("server");
    let files = Files::with(&issued);
    fs::remove_file(files.path("ca.pem")).expect("remove");
    for (selection, prefix) in [(files.pair(), "loading trust store: "), (files.anonymous(), "")] {
        let expected = format!("{prefix}open ca.pem: no such file or directory");
        assert_begins(&files.failure(&selection), &expected, "no bundle");
    }
    for contents in [
        String::new(),
        issued.key,
        issued.authority.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        block("CERTIFICATE", "AAAA"),
    ] {
        files.write("ca.pem", contents);
        let failure = files.failure(&files.pair());
        let expected = "loading trust store: unable to read certificates from CA bundle";
        assert!(failure.starts_with(expected), "{failure}");
    }
}

#[test]
fn unparsable_anchors_are_skipped_with_a_warning() {
    let issued = issue("server");
    let files = Files::with(&issued);
    files.write("ca.pem", block("CERTIFICATE", "AAAA") + &issued.authority);
    let current = Store::load(&files.pair()).expect("one good anchor").current();
    assert_eq!(current.anchors().certificates().len(), 1);
    assert_eq!(
        current.warnings(),
        [Warning::UnparsableAnchors {
            path: files.path("ca.pem"),
            count: 1
        }]
    );
}

#[test]
fn own_certificate_outside_its_validity_is_used_with_a_warning() {
    let subject = || "CN=server".to_owned();
    for (from, to, expected) in [
        (2001, 2002, Warning::Expired { subject: subject() }),
        (4001, 4002, Warning::NotYetValid { subject: subject() }),
    ] {
        let mut parameters = parameters("server");
        parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
        let issued = issue_with(parameters, &KeyPair::generate().expect("key"));
        let store = Store::load(&Files::with(&issued).pair()).expect("good files");
        assert_eq!(store.current().warnings(), [expected]);
    }
}

#[test]
fn reload_changes_nothing_until_it_is_published() {
    let files = Files::with(&issue("before"));
    let store = Store::load(&files.pair()).expect("good files");
    let mut follower = store.subscribe();
    let after = issue("after");
    files.write("cert.pem", &after.certificate);
    files.write("key.pem", &after.key);
    files.write("ca.pem", after.authority.clone() + &issue("x").authority);

    let fresh = store.prepare_reload().expect("good files");
    assert_eq!(subject(&store), "CN=before");
    assert!(!follower.has_changed().expect("the store lives"));

    store.publish(fresh);
    assert_eq!(subject(&store), "CN=after");
    assert!(follower.has_changed().expect("the store lives"));
    let seen = Arc::clone(&follower.borrow_and_update());
    assert_eq!((seen.generation(), seen.anchors().certificates().len()), (2, 2));
}

#[test]
fn failed_reload_keeps_everything() {
    let before = issue("before");
    let files = Files::with(&before);
    let store = Store::load(&files.pair()).expect("good files");
    let in_force = store.current();
    let after = issue("after");
    for (name, contents) in [
        ("key.pem", ""),
        ("key.pem", &after.key),
        ("cert.pem", &after.certificate),
        ("ca.pem", "no certificate"),
    ] {
        let good = fs::read(files.path(name)).expect("read");
        files.write(name, contents);
        store.prepare_reload().expect_err(name);
        assert!(Arc::ptr_eq(&store.current(), &in_force), "{name}");
        files.write(name, good);
    }
    store.prepare_reload().expect("good files again");
}

#[test]
fn older_credentials_never_replace_newer_ones() {
    let files = Files::with(&issue("server"));
    let store = Store::load(&files.pair()).expect("good files");
    let earlier = store.prepare_reload().expect("good files");
    let later = store.prepare_reload().expect("good files");
    store.publish(Arc::clone(&later));
    store.publish(earlier);
    assert!(Arc::ptr_eq(&store.current(), &later));
}

#[test]
fn denied_reload_hints_at_the_sandbox_and_keeps_the_phrase() {
    let path = PathBuf::from("/etc/cert.pem");
    for number in [rustix::io::Errno::ACCESS, rustix::io::Errno::PERM] {
        let error = io::Error::from_raw_os_error(number.raw_os_error());
        let problem = FileProblem::Open(ReadError::Open {
            path: path.clone(),
            error,
        });
        let at_start = LoadError::certificate(&path, Role::Key, problem).to_string();
        let error = io::Error::from_raw_os_error(number.raw_os_error());
        let problem = FileProblem::Open(ReadError::Open {
            path: path.clone(),
            error,
        });
        let on_reload = LoadError::certificate(&path, Role::Key, problem)
            .on_reload()
            .to_string();
        let hint = on_reload.strip_prefix(&at_start).expect("the phrase stays");
        assert!(hint.starts_with("; the sandbox "), "{hint}");
    }
    let problem = FileProblem::NoBlocks { path: path.clone() };
    let other = LoadError::certificate(&path, Role::Key, problem)
        .on_reload()
        .to_string();
    assert!(!other.contains("sandbox"), "{other}");
}

/// Points the link `live` to another directory in one step, as Kubernetes does.
fn point(root: &Path, target: &str) {
    let staged = root.join("staged");
    symlink(target, &staged).expect("link");
    fs::rename(&staged, root.join("live")).expect("rename");
}

/// A directory with two sets, `a` and `b`, and a link `live` to the first.
fn two_sets() -> (Files, Selection) {
    let files = Files::new();
    for name in ["a", "b"] {
        let issued = issue(name);
        fs::create_dir(files.path(name)).expect("create");
        files.write(&format!("{name}/cert.pem"), &issued.certificate);
        files.write(&format!("{name}/key.pem"), &issued.key);
        files.write(&format!("{name}/ca.pem"), &issued.authority);
    }
    point(files.directory.path(), "a");
    let live = files.path("live");
    let selection = Selection {
        identity: Identity::Pair {
            cert: live.join("cert.pem"),
            key: live.join("key.pem"),
            password: Password::None,
        },
        trust: Trust::Bundle(live.join("ca.pem")),
    };
    (files, selection)
}

#[test]
fn exchange_between_two_reads_is_noticed() {
    let (files, _) = two_sets();
    let live = files.path("live");
    let mut passes = 0;
    let entry = steadily(|reading| {
        passes += 1;
        let certificate = reading.read(&live.join("cert.pem"), u64::MAX).expect("read");
        if passes == 1 {
            point(files.directory.path(), "b");
        }
        let key = reading.read(&live.join("key.pem"), u64::MAX).expect("read");
        (certificate, key)
    });
    assert_eq!(passes, 2);
    assert_eq!(*entry.0, fs::read(files.path("b/cert.pem")).expect("read"));
    assert_eq!(*entry.1, fs::read(files.path("b/key.pem")).expect("read"));
}

#[test]
fn file_that_appears_while_others_are_read_is_noticed() {
    let files = Files::new();
    let path = files.path("cert.pem");
    let mut passes = 0;
    let result = steadily(|reading| {
        passes += 1;
        let result = reading.read(&path, u64::MAX);
        if passes == 1 {
            files.write("cert.pem", "there");
        }
        result
    });
    assert_eq!((passes, result.is_ok()), (2, true));
}

#[test]
fn reloads_during_exchanges_yield_whole_pairs() {
    let (files, selection) = two_sets();
    let store = Store::load(&selection).expect("good files");
    thread::scope(|scope| {
        let root = files.directory.path();
        scope.spawn(move || {
            for round in 0..300 {
                point(root, if round % 2 == 0 { "b" } else { "a" });
            }
        });
        for _ in 0..100 {
            match store.prepare_reload() {
                Ok(fresh) => store.publish(fresh),
                Err(error) => assert!(
                    matches!(
                        error,
                        LoadError::KeyPair {
                            error: KeyPairError::OtherKey,
                            ..
                        }
                    ),
                    "only a torn pair may fail: {error}"
                ),
            }
            let current = store.current();
            let identity = current.identity().expect("an identity");
            assert!(
                identity.certified_key().keys_match().is_ok(),
                "{}",
                identity.subject()
            );
        }
    });
    store.publish(store.prepare_reload().expect("nobody exchanges files any more"));
    assert_eq!(subject(&store), "CN=a");
}
