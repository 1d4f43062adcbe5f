"""check.py URL VERB...: asks Prometheus; run.sh says what for.  Ends with status 1 if it is not so."""
import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request

URL = sys.argv[1]


def get(path, **arguments):
    query = '?' + urllib.parse.urlencode(arguments, doseq=True) if arguments else ''
    try:
        with urllib.request.urlopen(f'{URL}/api/v1/{path}{query}', timeout=20) as answer:
            return json.load(answer)['data']
    except urllib.error.HTTPError as error:
        sys.exit(f'{path} {arguments}: {error.read().decode()}')


def query(expression):
    """The numbers that an expression has now."""
    values = [float(sample['value'][1]) for sample in get('query', query=expression)['result']]
    return [value for value in values if not math.isnan(value)]


def wait(seconds, what, condition):
    began = time.time()
    while not condition():
        if time.time() - began > seconds:
            sys.exit(f'{what}: not after {seconds} s')
        time.sleep(1)
    print(f'   {what}, after {time.time() - began:.0f} s', flush=True)


def alerts(name):
    return [a for a in get('alerts')['alerts'] if a['labels']['alertname'] == name and a['state'] == 'firing']


def ready():
    for _ in range(300):
        try:
            targets = get('targets')['activeTargets']
            if targets and all(target['health'] == 'up' for target in targets):
                return
            error = targets[0]['lastError'] if targets else 'no target'
        except OSError as problem:
            error = problem
        time.sleep(0.2)
    sys.exit(f'Prometheus does not scrape: {error}')


def with_variables(expression):
    for name, value in (('__rate_interval', '1m'), ('job', 'event_queue'), ('instance', '.*'), ('database', '.*'), ('queue', '.*')):
        expression = expression.replace('$' + name, value)
    if '$' in expression:
        sys.exit(f'a variable that is not known: {expression}')
    return expression


def data(file):
    """Each rule is well, each metric that it asks for is there; each panel's queries have data."""
    missing = []
    rules = [rule for group in get('rules')['groups'] for rule in group['rules']]
    selectors = set()
    for rule in rules:
        if rule['health'] != 'ok':
            missing.append(f"rule {rule['name']}: {rule['health']} {rule.get('lastError')}")
        selectors.update(re.findall(r'\b(?:event_queue|eventq)[a-z_:0-9]*[a-z0-9](?:\{[^}]*\})?|\bup\{[^}]*\}', rule['query']))
        if rule['type'] == 'recording':
            selectors.add(rule['name'])
    missing += [f'rules: {selector}' for selector in sorted(selectors) if not query(selector)]
    with open(file, encoding='utf-8') as opened:
        dashboard = json.load(opened)
    panels = [panel for panel in dashboard['panels'] if panel['type'] != 'row']
    n = 0
    for panel in panels:
        for key in ('title', 'description'):
            if not panel.get(key):
                missing.append(f"panel {panel['id']}: no {key}")
        if not panel['fieldConfig']['defaults'].get('unit'):
            missing.append(f"panel {panel['title']}: no unit")
        for target in panel['targets']:
            n += 1
            if panel['datasource']['uid'] != '${datasource}' or target['datasource']['uid'] != '${datasource}':
                missing.append(f"panel {panel['title']}: data source")
            if re.search(r'_total\b', target['expr']) and not re.search(r'rate\(|increase\(', target['expr']):
                missing.append(f"panel {panel['title']}: a counter without a rate")
            if not query(with_variables(target['expr'])):
                missing.append(f"panel {panel['title']}: {target['expr']}")
    for variable in dashboard['templating']['list']:
        if variable['type'] == 'query':
            selector, label = re.fullmatch(r'label_values\((.*), (\w+)\)', variable['definition']).groups()
            if not any(label in series for series in get('series', **{'match[]': with_variables(selector)})):
                missing.append(f"variable {variable['name']}: {selector}")
    if missing:
        sys.exit('without data, or wrong:\n  ' + '\n  '.join(missing))
    print(f'   {len(rules)} rules with {len(selectors)} metrics, {len(panels)} panels with {n} queries: all have data', flush=True)


def fires(name, label, seconds):
    key, value = re.fullmatch(r'(\w+)="(.*)"', label).groups()
    wait(int(seconds), f'{name} fires', lambda: any(a['labels'].get(key) == value for a in alerts(name)))
    for alert in alerts(name):
        for text in alert['annotations'].values():
            if 'error' in text and 'template' in text or '{{' in text or not text:
                sys.exit(f'{name}: {text}')
        print('     ' + alert['annotations']['summary'], flush=True)


def quiet(name):
    if alerts(name):
        sys.exit(f'{name} fires')


def resolves(name, seconds):
    wait(int(seconds), f'{name} resolves', lambda: not alerts(name))


def health(queue, value):
    wait(20, f'health of {queue} is {value}',
         lambda: query(f'event_queue:queue_health{{queue="{queue}"}}') == [float(value)])


globals()[sys.argv[2]](*sys.argv[3:])
