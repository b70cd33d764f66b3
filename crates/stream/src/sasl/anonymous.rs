//! Nobody in particular: an account of a random name that lives as long as the stream. RFC 4505, XEP-0175.

use super::{Condition, Context, Step, claim};

/// Longest trace information, in characters. RFC 4505 §2.
const TRACE_CHARS_MAX: usize = 255;

/// The message is trace information, which nobody keeps.
pub(crate) fn start(message: &[u8], cx: &Context<'_>) -> Result<Step, Condition> {
    let trace = std::str::from_utf8(message).map_err(|_| Condition::MalformedRequest)?;
    if trace.chars().count() > TRACE_CHARS_MAX {
        return Err(Condition::MalformedRequest);
    }
    let mut random = [0; 16];
    cx.crypto.random(&mut random);
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // The header's `from` cannot know the name.
    let account = claim(&name, None, &Context { from: None, ..*cx })?;
    Ok(Step::Done { account, additional: None, token: None })
}
