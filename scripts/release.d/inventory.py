"""What is linked into the program: as an SBOM, and as the licences that its publication asks for.

Linked is what cargo names as a normal dependency with the features of this build. What runs while
the compiler does (macros, build scripts) and what only tests use is in nobody's program. C sources
belong to the crate that brings them (`aws-lc-sys`, `zstd-sys`, `libmimalloc-sys`).
"""
import collections
import hashlib
import json
import pathlib
import re
import subprocess
import uuid

FORMAT = "1.6"
# Names of files that say what a crate may be used for, where they lie in it.
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|unlicense|copyright)", re.I)
NOT_TEXT = (".rs", ".c", ".h", ".py", ".go", ".sh", ".html")
# C libraries inside of crates have theirs this deep.
DEPTH_MAX = 4
# What crates mean that name a licence and do not bring its text.
TEXTS = pathlib.Path(__file__).resolve().parent / "licenses"
LINE = "=" * 80

Crates = collections.namedtuple("Crates", "root linked target rust edges")


def cargo(repo, *words):
    ran = subprocess.run(["cargo", *words], cwd=repo, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"release: cargo {words[0]} failed:\n{ran.stderr}")
    return ran.stdout


def checksums(repo):
    """What the lock file says of each crate, by name and version."""
    found = {}
    for block in (repo / "Cargo.lock").read_text().split("\n[[package]]\n")[1:]:
        fields = dict(re.findall(r'^(name|version|checksum) = "(.*)"$', block, re.M))
        found[fields["name"], fields["version"]] = fields.get("checksum")
    return found


def read(repo):
    """The crates that are linked for this machine, in their order."""
    told = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)
    target = facts["host"]
    tree = cargo(repo, "tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro",
                 "--prefix", "none", "--format", "{p}")
    names = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    known = json.loads(cargo(repo, "metadata", "--locked", "--format-version", "1",
                             "--filter-platform", target))
    sums, linked, ids = checksums(repo), [], {}
    for package in known["packages"]:
        if (package["name"], f"v{package['version']}") in names:
            package["checksum"] = sums[package["name"], package["version"]]
            linked.append(package)
            ids[package["id"]] = package
    if len(linked) != len(names):
        raise SystemExit(f"release: cargo tree names {len(names)} crates, metadata {len(linked)}")
    linked.sort(key=lambda it: (it["name"], it["version"]))
    root = next(it for it in linked if it["source"] is None)
    linked.remove(root)
    edges = {
        purl(ids[node["id"]]): sorted(purl(ids[it["pkg"]]) for it in node["deps"]
                                      if it["pkg"] in ids and is_normal(it))
        for node in known["resolve"]["nodes"] if node["id"] in ids
    }
    return Crates(root, linked, target, facts["release"], edges)


def is_normal(dependency):
    return any(kind["kind"] is None for kind in dependency["dep_kinds"])


def purl(package):
    """The name of a package that all tools have agreed on."""
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def expression(package):
    """Its licence as SPDX says it; some crates still write `MIT/Apache-2.0`."""
    said = package["license"]
    return said.replace("/", " OR ") if said else None


def component(package):
    """One crate in the form of CycloneDX."""
    made = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
        "scope": "required",
    }
    if package["description"]:
        made["description"] = " ".join(package["description"].split())
    if package["checksum"]:
        made["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
    if expression(package):
        made["licenses"] = [{"expression": expression(package)}]
    if package["authors"]:
        made["authors"] = [{"name": name} for name in package["authors"]]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def sbom(crates, program, when):
    """The bill of materials of a program, which the stripped file is."""
    import datetime
    root = component(crates.root)
    root["type"] = "application"
    root.pop("scope")
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    root["hashes"] = [{"alg": "SHA-256", "content": digest}]
    library = {"type": "library", "bom-ref": f"rust-std@{crates.rust}", "name": "rust-std",
               "version": crates.rust, "scope": "required",
               "purl": f"pkg:generic/rust-std@{crates.rust}",
               "description": "The standard library of Rust, linked statically.",
               "licenses": [{"expression": "MIT OR Apache-2.0"}]}
    components = [*map(component, crates.linked), library]
    edges = {**crates.edges, library["bom-ref"]: []}
    edges[root["bom-ref"]] = edges[root["bom-ref"]] + [library["bom-ref"]]
    moment = datetime.datetime.fromtimestamp(when, datetime.timezone.utc)
    # The same program has the same number.
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"{root['bom-ref']}#{digest}")
    return json.dumps({
        "$schema": f"http://cyclonedx.org/schema/bom-{FORMAT}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": FORMAT,
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "scripts/release",
                                      "version": crates.root["version"]}]},
            "component": root,
        },
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": edges[ref]} for ref in sorted(edges)],
    }, indent=1) + "\n"


def texts(package):
    """The texts that a crate brings, by where they lie in it."""
    root = pathlib.Path(package["manifest_path"]).parent
    found = {}
    for path in sorted(root.rglob("*")):
        within = path.relative_to(root)
        is_one = LICENCE_FILE.match(path.name) and path.suffix not in NOT_TEXT and path.is_file()
        if is_one and len(within.parts) <= DEPTH_MAX and "tests" not in within.parts:
            found[within.as_posix()] = path.read_text(errors="replace").strip()
    return found or missing(package)


def missing(package):
    """The text that a crate means and does not bring, with the names that it gives."""
    allowed = [name.strip("() ") for name in re.split(r"\bOR\b|\bAND\b|/", package["license"])]
    for name in allowed:
        path = TEXTS / f"{name}.txt"
        if path.is_file():
            authors = ", ".join(package["authors"]) or f"the authors of {package['name']}"
            return {name: path.read_text().strip().replace("{authors}", authors)}
    raise SystemExit(f"release: {package['name']} {package['version']} brings no text of its licence"
                     f" ({package['license']}): put the text into {TEXTS}")


def licenses(crates, repo):
    """One file: what is linked, and then each text once, under those that it is of."""
    of = collections.defaultdict(list)
    of[(repo / "LICENSE").read_text().strip()].append("portcullis (LICENSE)")
    lines = [
        f"Portcullis {crates.root['version']} is under the licence in LICENSE. It is linked with",
        "the crates below, and with the standard library of Rust (MIT OR Apache-2.0; its texts are",
        "https://www.rust-lang.org/policies/licenses). Where one offers a choice, each of its",
        "licences is below.", "",
    ]
    for package in crates.linked:
        name = f"{package['name']} {package['version']}"
        lines.append(f"  {name}: {package['license']}")
        if package["repository"]:
            lines.append(f"    {package['repository']}")
        for where, text in texts(package).items():
            of[text].append(f"{name} ({where})")
    for text, names in of.items():
        lines += ["", LINE, *names, LINE, "", text]
    return "\n".join(lines) + "\n"
