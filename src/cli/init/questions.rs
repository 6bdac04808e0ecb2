//! The questions of `portcullis init`, on a terminal. An answer that `check` would refuse is asked
//! for again at once.

use std::io::{BufRead, Write};
use std::path::Path;

use super::starter::{Answers, NONE, Tokens};

/// The terminal, and the folder from which the files that answers name are found.
pub(super) struct Questions<'a, R, W> {
    pub(super) input: R,
    pub(super) output: W,
    pub(super) folder: &'a Path,
}

impl<R: BufRead, W: Write> Questions<'_, R, W> {
    /// Asks for everything; an empty answer takes what `answers` has.
    pub(super) fn ask_all(&mut self, answers: &Answers) -> Result<Answers, String> {
        self.say("An empty line takes what stands in brackets.\n\n")?;
        let usual = answers.upstreams.first().cloned().unwrap_or_default();
        let answers = self.ask("Where does your service listen?", &usual, |text| {
            Ok(Answers { upstreams: vec![text.to_owned()], ..answers.clone() })
        })?;
        let answers = self.ask_tokens(&answers)?;
        let question = "Which Redis do your gateways share? memory: for one gateway without Redis";
        let answers = self.ask(question, &answers.store, |text| {
            Ok(Answers { store: text.to_owned(), ..answers.clone() })
        })?;
        let who = if matches!(answers.tokens, Tokens::None) { "address" } else { "user" };
        let question = format!("How many requests may each {who} send? {NONE} for any number");
        let usual = answers.limit.as_deref().unwrap_or(NONE);
        self.ask(&question, usual, |text| Ok(Answers { limit: some(text), ..answers.clone() }))
    }

    fn ask_tokens(&mut self, answers: &Answers) -> Result<Answers, String> {
        let question = "Who signs the tokens of your users? The URL of an issuer,\n  env:NAME or \
                        file:PATH of a secret, new for a new secret, none for no tokens";
        let mut answers = self.ask(question, NONE, |text| {
            Ok(Answers { tokens: Tokens::read(text)?, ..answers.clone() })
        })?;
        if let Tokens::Issuer { issuer, jwks_url, audience } = answers.tokens.clone() {
            let question = "Where does it publish its keys (JWKS)? none where its \
                            /.well-known/openid-configuration\n  says so";
            answers = self.ask(question, jwks_url.as_deref().unwrap_or(NONE), |text| {
                let tokens = Tokens::issuer(&issuer, some(text), audience.clone());
                Ok(Answers { tokens, ..answers.clone() })
            })?;
        }
        if let Tokens::Issuer { issuer, jwks_url, .. } = answers.tokens.clone() {
            let question = "Whom must its tokens be for (aud)? none for whomever";
            answers = self.ask(question, NONE, |text| {
                let tokens = Tokens::issuer(&issuer, jwks_url.clone(), some(text));
                Ok(Answers { tokens, ..answers.clone() })
            })?;
        }
        Ok(answers)
    }

    /// One question, until `take` makes something of the answer that `check` takes.
    fn ask(
        &mut self,
        question: &str,
        usual: &str,
        take: impl Fn(&str) -> Result<Answers, String>,
    ) -> Result<Answers, String> {
        loop {
            self.say(&format!("{question} [{usual}]: "))?;
            let mut text = String::new();
            let length = self.input.read_line(&mut text);
            if length.map_err(|error| format!("cannot read the answer: {error}"))? == 0 {
                return Err("the input has ended before the last answer; nothing is written".into());
            }
            let text = if text.trim().is_empty() { usual } else { text.trim() };
            let taken = take(text).and_then(|it| it.judge(self.folder).map(|()| it));
            match taken {
                Ok(answers) => return Ok(answers),
                Err(why) => self.say(&format!("  {}\n", why.replace('\n', "\n  ")))?,
            }
        }
    }

    fn say(&mut self, text: &str) -> Result<(), String> {
        let said = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        said.map_err(|error| format!("cannot ask: {error}"))
    }
}

/// Nothing, where that is the answer.
pub(super) fn some(text: &str) -> Option<String> {
    (text != NONE).then(|| text.to_owned())
}
