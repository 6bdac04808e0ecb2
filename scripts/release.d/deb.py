"""The package for Debian and Ubuntu, assembled by dpkg-deb from a staged tree."""
import email.utils
import hashlib
import os
import re
import shutil

import stage

# Whoever publishes a package answers for it.
MAINTAINER = os.environ.get("PORTCULLIS_MAINTAINER",
                            "Portcullis maintainers <maintainers@portcullis.invalid>")
# Libraries that a program may want, and the packages that have them. Anything else is a mistake.
LIBRARIES = {
    "libc.so.6": "libc6", "libm.so.6": "libc6", "libdl.so.2": "libc6", "libpthread.so.0": "libc6",
    "librt.so.1": "libc6", "ld-linux-x86-64.so.2": "libc6", "ld-linux-aarch64.so.1": "libc6",
    "libgcc_s.so.1": "libgcc-s1",
}
LIBGCC = "3.0"
CONTROL = """\
Package: portcullis
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {kib}
Depends: libc6 (>= {glibc}), libgcc-s1 (>= {libgcc})
Recommends: ca-certificates
Suggests: logrotate, redis-server (>= 5:7.0)
Breaks: systemd (<< 252)
Section: net
Priority: optional
Description: edge gateway for HTTP services
 For every request Portcullis checks the token and whether it was revoked,
 charges exact rate limits, attaches the session of the caller and answers
 reads from a shared cache. What it needs from Redis for all of that is asked
 in one round trip; without Redis it runs on its embedded store.
 .
 The service begins on the loopback address and says that it is not configured.
"""
CHANGELOG = """\
portcullis ({version}) stable; urgency=medium

  * Version {version}. CHANGELOG.md.gz beside this file says what is new in it,
    and docs/upgrading.md of the sources what to look at before an upgrade.

 -- {maintainer}  {date}
"""
SCRIPTS = ("postinst", "prerm", "postrm")
# Where what the tree has goes in the package.
PLACES = {
    "portcullis": "usr/bin/portcullis",
    "completions/portcullis.bash": "usr/share/bash-completion/completions/portcullis",
    "completions/_portcullis": "usr/share/zsh/vendor-completions/_portcullis",
    "completions/portcullis.fish": "usr/share/fish/vendor_completions.d/portcullis.fish",
    "systemd/portcullis.service": "usr/lib/systemd/system/portcullis.service",
    "systemd/portcullis.socket": "usr/lib/systemd/system/portcullis.socket",
    "systemd/portcullis.logrotate": "etc/logrotate.d/portcullis",
    "gateway.toml": "usr/share/doc/portcullis/examples/gateway.toml",
}
DOC = "usr/share/doc/portcullis"
PACKED = {"CHANGELOG.md": "CHANGELOG.md.gz", "THIRD-PARTY-LICENSES": "THIRD-PARTY-LICENSES.gz",
          "portcullis.cdx.json": "portcullis.cdx.json.gz"}


def glibc(program):
    """The oldest version of glibc that has every symbol the program wants."""
    headers = stage.run("objdump", "-p", program).decode()
    wanted = re.findall(r"^\s+NEEDED\s+(\S+)$", headers, re.M)
    if unknown := set(wanted) - set(LIBRARIES):
        raise SystemExit(f"release: the program wants {', '.join(sorted(unknown))}, and no package"
                         " that the .deb depends on has that")
    versions = [tuple(map(int, it)) for it in re.findall(r"GLIBC_(\d+)\.(\d+)", headers)]
    # Relocations in their short form: no symbol says of which version they are.
    versions += [(2, 36)] * ("GLIBC_ABI_DT_RELR" in headers)
    return ".".join(str(part) for part in max(versions))


def fill(tree, root, version):
    """Puts the files of the package into a folder."""
    for source, place in PLACES.items():
        stage.copied(tree.root / source, root / place)
    for page in (tree.root / "man" / "man1").iterdir():
        stage.packed(root / f"usr/share/man/man1/{page.name}.gz", page.read_bytes(), tree.when)
    for source, name in PACKED.items():
        stage.packed(root / DOC / name, (tree.root / source).read_bytes(), tree.when)
    own = tree.repo / "deploy" / "deb"
    stage.copied(own / "copyright", root / DOC / "copyright")
    stage.copied(own / "gateway.toml", root / "etc/portcullis/gateway.toml")
    stage.copied(own / "lintian-overrides", root / "usr/share/lintian/overrides/portcullis")
    (root / "etc/portcullis/credentials").mkdir()
    date = email.utils.formatdate(tree.when, localtime=False)
    text = CHANGELOG.format(version=version, maintainer=MAINTAINER, date=date)
    stage.packed(root / DOC / "changelog.gz", text.encode(), tree.when)


def control(tree, root, version):
    """Writes DEBIAN/ of a folder that has all files."""
    files = [path for path in stage.in_order(root) if path.is_file()]
    # As dpkg-gencontrol counts: a KiB for each folder, and files rounded up.
    kib = sum(-(-path.stat().st_size // 1024) for path in files)
    kib += sum(1 for path in root.rglob("*") if path.is_dir())
    folder = root / "DEBIAN"
    folder.mkdir()
    architecture = stage.run("dpkg", "--print-architecture").decode().strip()
    (folder / "control").write_text(CONTROL.format(
        version=version, architecture=architecture, maintainer=MAINTAINER, kib=kib,
        glibc=glibc(tree.program), libgcc=LIBGCC))
    names = [path.relative_to(root).as_posix() for path in files]
    (folder / "conffiles").write_text("".join(f"/{it}\n" for it in names if it.startswith("etc/")))
    sums = [f"{hashlib.md5((root / it).read_bytes()).hexdigest()}  {it}\n"
            for it in names if not it.startswith("etc/")]
    (folder / "md5sums").write_text("".join(sums))
    for name in SCRIPTS:
        stage.copied(tree.repo / "deploy" / "deb" / name, folder / name).chmod(0o755)
    return architecture


def package(tree, out, version, is_fast):
    """The .deb of the tree."""
    # A pre-release is older than the release of its name.
    version = version.replace("-", "~", 1)
    root = tree.root.parent / "deb"
    root.mkdir()
    fill(tree, root, version)
    architecture = control(tree, root, version)
    stage.settle(root, tree.when)
    # Secrets lie here; only the service manager reads them.
    (root / "etc/portcullis/credentials").chmod(0o700)
    made = out / f"portcullis_{version}_{architecture}.deb"
    level = ["-Zgzip", "-z1"] if is_fast else ["-Zxz", "-z6"]
    # How many threads compress decides what comes out.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(tree.when), "DPKG_DEB_THREADS_MAX": "1"}
    stage.run("dpkg-deb", "--root-owner-group", *level, "--build", root, made, env=environment)
    shutil.rmtree(root)
    return made
