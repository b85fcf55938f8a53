import { z } from "zod"
import type { JsonValue } from "../bytes/json.ts"
import { problemMediaType, problemSchema } from "./problem.ts"
import { pathParameters, type Route, routes } from "./routes.ts"
import { sessionHeader } from "./session.ts"

/** OpenAPI 3.1 document of HTTP API v1, generated from the table of routes and the schemas that parse the messages. */
export function makeOpenApiDocument(): Record<string, JsonValue> {
  const paths: Record<string, Record<string, JsonValue>> = {}
  for (const [name, route] of Object.entries(routes) as [string, Route][]) {
    const path = route.path.replaceAll(/:([a-z]+)/g, "{$1}")
    const operations = (paths[path] ??= {})
    operations[route.method.toLowerCase()] = describeOperation(name, route)
  }
  return {
    openapi: "3.1.0",
    info: { title: "Perun policy manager", version: "1", description: "Errors are RFC 9457 problem documents; their `code` is stable." },
    paths,
    components: {
      schemas: { Problem: jsonSchema(problemSchema) },
      securitySchemes: {
        clientKey: { type: "mutualTLS", description: "any client key; the manager knows hosts by it" },
        session: { type: "apiKey", in: "header", name: sessionHeader, description: "statement by an identity that the TLS client key speaks for it" },
      },
    },
  }
}

function describeOperation(name: string, route: Route): JsonValue {
  const body =
    route.content === "blob" && route.method === "PUT"
      ? { requestBody: { required: true, content: { "application/octet-stream": {} } } }
      : route.body instanceof z.ZodUndefined
        ? {}
        : { requestBody: { required: true, content: { "application/json": { schema: jsonSchema(route.body) } } } }
  return {
    operationId: name,
    summary: route.summary,
    parameters: [...pathParametersOf(route), ...queryParametersOf(route)],
    ...body,
    responses: {
      "200": { description: "done", ...responseContent(route) },
      default: { description: "problem", content: { [problemMediaType]: { schema: { $ref: "#/components/schemas/Problem" } } } },
    },
    security: securityOf(route),
  }
}

function pathParametersOf(route: Route): JsonValue[] {
  return Object.entries(pathParameters)
    .filter(([name]) => route.path.split("/").includes(`:${name}`))
    .map(([name, schema]) => ({ name, in: "path", required: true, schema: jsonSchema(schema) }))
}

function queryParametersOf(route: Route): JsonValue[] {
  if (!(route.query instanceof z.ZodObject)) return []
  return Object.entries(route.query.shape).map(([name, schema]) => {
    const required = !(schema as z.ZodType).safeParse(undefined).success
    return { name, in: "query", required, schema: jsonSchema(schema as z.ZodType) }
  })
}

function responseContent(route: Route): Record<string, JsonValue> {
  switch (route.content) {
    case "json":
      return { content: { "application/json": { schema: jsonSchema(route.response) } } }
    case "events":
      return { content: { "text/event-stream": { schema: jsonSchema(route.response) } } }
    case "blob":
      return route.method === "GET" ? { content: { "application/octet-stream": {} } } : {}
  }
}

function securityOf(route: Route): JsonValue[] {
  switch (route.access) {
    case "open":
      return []
    case "stakeholder":
      return [{ clientKey: [], session: [] }]
    case "host":
      return [{ clientKey: [] }]
    case "either":
      return [{ clientKey: [], session: [] }, { clientKey: [] }]
  }
}

function jsonSchema(schema: z.ZodType): JsonValue {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { unrepresentable: "any" }) as Record<string, JsonValue>
  return rest
}
