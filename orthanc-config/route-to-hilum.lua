-- Sends each study to Hilum once it is stable, and never sends Hilum its own results.
--
-- Works series by series: when Hilum's results arrive, the study becomes stable again, and a script that sends whole
-- studies would send everything again, results included. How many instances of a series have been sent is kept in
-- its metadata, so a series goes out again only when images have been added.

local MODALITY = 'HILUM'        -- name in "DicomModalities"
local HILUM_AET = 'HILUM'       -- AE title that Hilum calls with
local METADATA = 'SentToHilum'  -- name in "UserMetadata"

-- Modalities that an algorithm makes and no model takes as its input.
local RESULT_MODALITIES = { SEG = true, SR = true, KO = true, PR = true, DOC = true }

local SECONDARY_CAPTURE = '1.2.840.10008.5.1.4.1.1.7'

-- Series whose transfer failed; tried again with the next stable study.
local failed = {}
-- Orthanc job -> { series = number of instances }
local sending = {}

local function startsWith(text, prefix)
  return string.sub(text or '', 1, #prefix) == prefix
end

local function get(path)
  local answer = RestApiGet(path)
  return answer and answer ~= '' and ParseJson(answer) or nil
end

local function metadata(path)
  -- The list first: asking for metadata that is not there is an error in the log.
  local names = get(path .. '/metadata') or {}
  local values = {}
  for _, name in pairs(names) do
    values[name] = RestApiGet(path .. '/metadata/' .. name)
  end
  return values
end

-- Contributing equipment of purpose 1630 from coding scheme 99IHE: "made by an algorithm" (IHE AI Results).
local function madeByAlgorithm(tags)
  for _, equipment in pairs(tags['ContributingEquipmentSequence'] or {}) do
    for _, purpose in pairs(equipment['PurposeOfReferenceCodeSequence'] or {}) do
      if purpose['CodeValue'] == '1630' and purpose['CodingSchemeDesignator'] == '99IHE' then
        return true
      end
    end
  end
  return false
end

local function isResult(series)
  local instance = series['Instances'][1]
  local origin = metadata('/instances/' .. instance)
  if origin['RemoteAET'] == HILUM_AET then
    return true  -- it came from Hilum by C-STORE
  end
  local class = origin['SopClassUid'] or ''
  local mayBeResult = RESULT_MODALITIES[series['MainDicomTags']['Modality']] or startsWith(class, SECONDARY_CAPTURE)
  if not mayBeResult then
    return false
  end
  -- It may have come by STOW-RS, from a backup, or from another PACS: the object itself says who made it.
  local tags = get('/instances/' .. instance .. '/simplified-tags') or {}
  if madeByAlgorithm(tags) then
    return true
  end
  local manufacturer = string.lower(tags['Manufacturer'] or '')
  if string.find(manufacturer, 'hilum', 1, true) then
    return true
  end
  -- Hilum derives all its UIDs; by the network from somebody else, such a UID is somebody else's.
  return startsWith(tags['SOPInstanceUID'], '2.25.') and origin['Origin'] ~= 'DicomProtocol'
end

local function isSent(series)
  for _, counts in pairs(sending) do
    if counts[series['ID']] == #series['Instances'] then
      return true  -- on its way
    end
  end
  return metadata('/series/' .. series['ID'])[METADATA] == tostring(#series['Instances'])
end

local function pending(study)
  local counts, any = {}, false
  for _, id in pairs(study['Series'] or {}) do
    local series = get('/series/' .. id)
    if series and #series['Instances'] > 0 and not isSent(series) and not isResult(series) then
      counts[id], any = #series['Instances'], true
    end
  end
  return any and counts or nil
end

local function send(counts)
  local resources = {}
  for id, _ in pairs(counts) do
    table.insert(resources, id)
  end
  local request = DumpJson({ Resources = resources, Synchronous = false, Permissive = false }, true)
  local answer = RestApiPost('/modalities/' .. MODALITY .. '/store', request)
  local job = answer and answer ~= '' and ParseJson(answer)['ID']
  if job then
    sending[job] = counts
  else
    print('Hilum: the series could not be queued')
  end
end

function OnStableStudy(studyId, tags, studyMetadata)
  local again = failed
  failed = {}
  for series, _ in pairs(again) do
    local parent = get('/series/' .. series)
    local counts = parent and pending({ Series = { series } })
    if counts and parent['ParentStudy'] ~= studyId then
      send(counts)
    end
  end
  local counts = pending(get('/studies/' .. studyId) or {})
  if counts then
    send(counts)
  end
end

function OnJobSuccess(jobId)
  for series, count in pairs(sending[jobId] or {}) do
    RestApiPut('/series/' .. series .. '/metadata/' .. METADATA, tostring(count))
  end
  sending[jobId] = nil
end

function OnJobFailure(jobId)
  for series, count in pairs(sending[jobId] or {}) do
    failed[series] = count
    print('Hilum: series ' .. series .. ' could not be sent; it is tried again with the next study')
  end
  sending[jobId] = nil
end
