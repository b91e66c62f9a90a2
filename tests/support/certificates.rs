//! A test's own certificate authority.

use std::{path::Path, process::Command};

/// Creates a certificate for `localhost` and the authority that signed it, in an empty folder:
/// `.crt` and `.key` of `server` and of `ca`.
pub fn make_certificates(folder: &Path) {
    for (name, extensions, signer) in [
        ("ca", "basicConstraints=critical,CA:TRUE", None),
        ("server", "subjectAltName=DNS:localhost", Some("ca")),
    ] {
        let subject = format!("/CN=test {name}");
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
        ]);
        openssl.args(["-subj", &subject, "-days", "2", "-addext", extensions]);
        openssl.args(["-keyout", &key, "-out", &certificate]);
        if let Some(signer) = signer {
            openssl.args(["-CA", &format!("{signer}.crt"), "-CAkey", &format!("{signer}.key")]);
            openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        }
        let output = openssl.output().expect("openssl starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{openssl:?}: {errors}");
    }
}
