//! The OpenAPI description: by the rules, and as the routes answer.

use super::*;

/// The schema of an answer, with all that it names.
fn schema_of(document: &Value, operation: &Value, status: u16) -> Value {
    let content = &operation["responses"][status.to_string()]["content"];
    let mut schema = content["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{status} is described: {operation}");
    schema["components"] = document["components"].clone();
    schema
}

#[test]
fn every_route_is_described_and_answers_as_described() {
    let daemon = start_node(&[]);
    let (_subscriber, _publisher) = exchange_messages(&daemon);
    let health = health(&daemon);
    let document = get(health, "/openapi.json");
    let client = get(health, "/api/v1/clients")["clients"][0]["client_id"].clone();
    let client = client.as_str().expect("an id");
    let paths = document["paths"].as_object().expect("paths");
    let mut routes: Vec<_> = paths
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").iter().map(move |(method, it)| (path, method, it))
        })
        .collect();
    assert_eq!(routes.len(), 18, "{:?}", paths.keys().collect::<Vec<_>>());
    // What ends the client, and the node, comes last.
    routes.sort_by_key(|(path, ..)| (path.contains("drain"), path.contains("kill")));
    for (path, method, operation) in routes {
        let body = match path.as_str() {
            "/api/v1/clients/{id}/name" => r#"{"name": "printer"}"#,
            "/api/v1/log-level" => r#"{"level": "info"}"#,
            _ => "",
        };
        let body = if method == "get" { "" } else { body };
        let at = path.replace("{id}", client);
        let answer = call(health, &method.to_ascii_uppercase(), &at, body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        let schema = schema_of(&document, operation, answer.status);
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let content = answer.json();
        let faults: Vec<_> = validator.iter_errors(&content).map(|it| it.to_string()).collect();
        assert!(faults.is_empty(), "{method} {path}: {faults:?} in {content}");
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        assert!(!validator.is_valid(&json!("something else")), "{path} is described in earnest");
        let nothing_more = schema["$ref"].is_string();
        assert!(nothing_more, "{path} answers with something that has a name");
    }
}

/// What OpenAPI 3.1 asks of a document that describes routes as this one does.
fn rules_of_openapi() -> Value {
    json!({
        "type": "object",
        "required": ["openapi", "info", "paths"],
        "properties": {
            "openapi": {"pattern": r"^3\.1\.\d+$"},
            "info": {"required": ["title", "version"]},
            "paths": {
                "propertyNames": {"pattern": "^/"},
                "additionalProperties": {"additionalProperties": {"$ref": "#/$defs/operation"}},
            },
        },
        "$defs": {
            "operation": {
                "type": "object",
                "required": ["operationId", "responses"],
                "properties": {
                    "parameters": {"items": {"$ref": "#/$defs/parameter"}},
                    "requestBody": {"required": ["content"]},
                    "responses": {
                        "minProperties": 1,
                        "propertyNames": {"pattern": "^([1-5](\\d\\d|XX)|default)$"},
                        "additionalProperties": {"$ref": "#/$defs/response"},
                    },
                },
            },
            "parameter": {
                "required": ["name", "in", "schema"],
                "properties": {"in": {"enum": ["query", "path"]}},
                "if": {"properties": {"in": {"const": "path"}}},
                "then": {"required": ["required"], "properties": {"required": {"const": true}}},
            },
            "response": {
                "type": "object",
                "required": ["description", "content"],
                "properties": {"description": {"type": "string", "minLength": 1}},
            },
        },
    })
}

/// Everything that a document refers to.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(entries) => {
            let own = entries.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(entries.values().flat_map(references)).collect()
        }
        Value::Array(values) => values.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_description_keeps_the_rules_of_openapi() {
    let document = get(health(&start(&[])), "/openapi.json");
    let validator = jsonschema::validator_for(&rules_of_openapi()).expect("a schema");
    let faults: Vec<_> = validator
        .iter_errors(&document)
        .map(|it| format!("{}: {it}", it.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    for named in references(&document) {
        let place = named.strip_prefix('#').expect("it is in the document");
        assert!(document.pointer(place).is_some(), "{named}");
    }
    let operations = document["paths"].as_object().expect("paths").values();
    let mut ids: Vec<_> = operations
        .flat_map(|methods| methods.as_object().expect("methods").values())
        .map(|operation| operation["operationId"].as_str().expect("an id"))
        .collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|two| two[0] != two[1]), "{ids:?}");
}

#[test]
fn what_is_wrong_with_a_question_is_said_as_described() {
    let daemon = start(&[]);
    let health = health(&daemon);
    let document = get(health, "/openapi.json");
    for (method, path, body, status, text) in [
        ("GET", "/api/v1/topics?filter=a%23", "", 400, "filter"),
        ("GET", "/api/v1/topics?limit=10001", "", 400, "the most is 10000"),
        ("GET", "/api/v1/topics?limit=x", "", 400, "limit"),
        ("GET", "/api/v1/topics?filtre=a", "", 400, "unknown field"),
        ("GET", "/api/v1/clients?client_id=7", "", 400, "SHARD-SLOT-GENERATION"),
        ("POST", "/api/v1/log-level", r#"{"level": "loud"}"#, 400, "\"loud\" is not a level"),
        ("POST", "/api/v1/log-level", r#"{"livel": "info"}"#, 400, "the body: "),
        ("POST", "/api/v1/log-level", "{", 400, "the body: "),
        ("POST", "/api/v1/log-level", &"x".repeat((64 << 10) + 1), 413, "at most 64 KiB"),
        ("POST", "/api/v1/clients/x/kill", "", 400, "SHARD-SLOT-GENERATION"),
        ("POST", "/api/v1/clients/0-9-9/kill", "", 404, "there is no client 0-9-9"),
        ("POST", "/api/v1/clients/63-0-0/kill", "", 404, "there is no client 63-0-0"),
        ("POST", "/api/v1/clients/0-9-9/name", r#"{"name": "x"}"#, 404, "there is no client 0-9-9"),
    ] {
        let answer = call(health, method, path, body);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let said = answer.json();
        assert!(said["error"].as_str().is_some_and(|said| said.contains(text)), "{path}: {said}");
        let text = said["error"].as_str().unwrap_or_default();
        assert!(!text.contains("deserialize") && !text.contains("Expected request"), "{text}");
        let route = path.split('?').next().expect("a path");
        let route = ["/x/", "/0-9-9/", "/63-0-0/"]
            .into_iter()
            .fold(route.to_owned(), |route, id| route.replace(id, "/{id}/"));
        let operation = &document["paths"][route][method.to_ascii_lowercase()];
        let schema = schema_of(&document, operation, status);
        assert!(jsonschema::validator_for(&schema).expect("a schema").is_valid(&said));
    }
    assert_eq!(call(health, "GET", "/", "").status, 404);
    assert_eq!(call(health, "DELETE", "/api/v1/topics", "").status, 405);
    let plain = call_with(health, "POST", "/api/v1/log-level", "Host: localhost\r\n", "{}");
    assert_eq!(plain.status, 415);
    assert!(plain.json()["error"].as_str().is_some_and(|said| said.contains("application/json")));
}
