//! The description of the API, as it is served.

use crate::gateway::Gateway;

/// Where it is.
const PATH: &str = "/api/v1/openapi.yaml";

#[tokio::test]
async fn everybody_can_read_what_the_gateway_takes_and_answers() {
    let gateway = Gateway::start().await;
    let stranger = gateway.stranger();
    let reply = stranger.get(PATH).await;
    assert_eq!(reply.status, 200);
    let media_type = reply.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
    assert_eq!(media_type, Some("application/yaml"));
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(text.starts_with("openapi: "), "{}", &text[..40]);
    for route in portcullis_http::route_table() {
        let path = format!("\n  {}:\n", route.path);
        let quoted = format!("\n  {:?}:\n", route.path);
        assert!(text.contains(&path) || text.contains(&quoted), "{} is not described", route.path);
    }
    assert_eq!(stranger.get(PATH).await.body, reply.body, "it differs from time to time");
    assert_eq!(stranger.delete(PATH).await.status, 405);
}
