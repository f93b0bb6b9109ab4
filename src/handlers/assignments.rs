//! Manual assignments of replicas to brokers: checked as Kafka does, though every partition lies in Redis.

/// Checks the replicas of one partition; `replicas` is how many the partitions before it have. Returns how many it has.
///
/// # Errors
/// With Kafka's words.
pub(super) fn validate(named: &[i32], brokers: &[i32], replicas: Option<usize>) -> Result<usize, String> {
    if named.is_empty() {
        return Err("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut sorted = named.to_vec();
    sorted.sort_unstable();
    let mut before = None;
    for id in &sorted {
        if !brokers.contains(id) {
            return Err(format!(
                "The manual partition assignment includes broker {id}, but no such broker is registered."
            ));
        }
        if before == Some(id) {
            return Err(format!("The manual partition assignment includes the broker {id} more than once."));
        }
        before = Some(id);
    }
    if let Some(replicas) = replicas.filter(|replicas| *replicas != named.len()) {
        return Err(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {replicas} replica(s).",
            named.len()
        ));
    }
    Ok(named.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_on_different_brokers_that_exist() {
        assert_eq!(validate(&[1], &[1, 2], None), Ok(1));
        assert_eq!(validate(&[2, 1], &[1, 2], Some(2)), Ok(2));
        assert!(validate(&[], &[1], None).is_err_and(|text| text.contains("empty")));
        assert!(validate(&[1, 1], &[1], None).is_err_and(|text| text.contains("more than once")));
        assert!(validate(&[1, 3], &[1, 2], None).is_err_and(|text| text.contains("broker 3")));
        assert!(validate(&[1], &[1, 2], Some(2)).is_err_and(|text| text.contains("not consistent")));
    }
}
