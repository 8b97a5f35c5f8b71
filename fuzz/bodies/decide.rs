//! `millrace decide`: lines of JSON through the policy's memory.
//!
//! Input: what stands on stdin.

use millrace::cli::answer_all;
use serde_json::Value;

/// What no input may break: no panic, an answer to every line, within the limits that the line itself gives; a mistake with the number
/// of its line; the same lines, the same answers.
pub fn run(input: &[u8]) {
    let (mut out, mut log) = (Vec::new(), Vec::new());
    let wrong = answer_all(&mut &*input, &mut out, &mut log).expect("nothing here can fail to be read or written");
    let mut again = Vec::new();
    assert_eq!(answer_all(&mut &*input, &mut again, &mut Vec::new()).ok(), Some(wrong));
    assert!(out == again, "the same lines, other answers");
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)).collect();
    let answers: Vec<Value> = out
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("an answer is JSON"))
        .collect();
    assert_eq!(answers.len(), lines.len());
    assert_eq!(answers.iter().filter(|answer| answer.get("error").is_some()).count() as u64, wrong);
    for (line, answer) in lines.iter().zip(&answers) {
        if let Some(error) = answer.get("error") {
            assert!(error.as_str().is_some_and(|error| !error.is_empty()), "a mistake without words");
            let number = answer["line"].as_u64().and_then(|number| usize::try_from(number).ok()).expect("a line's number");
            assert_eq!(input.split(|byte| *byte == b'\n').nth(number - 1), Some(*line), "the mistake is in another line");
            continue;
        }
        let replicas = answer["replicas"].as_u64().expect("a number of workers");
        assert!(!answer["reason"].as_str().unwrap_or_default().is_empty(), "a decision without a reason");
        let given: Value = serde_json::from_slice(line).expect("what was decided on is JSON");
        let number = |value: &Value| value.as_f64().expect("a number");
        let (min, max) = (number(&given["limits"]["min"]), number(&given["limits"]["max"]));
        // A snapshot that is not newer than the last one changes nothing, whatever its limits are.
        let stays = replicas as f64 == number(&given["replicas"]);
        assert!(stays || (replicas as f64 >= min && replicas as f64 <= max), "{replicas} of {min} to {max}");
    }
}
