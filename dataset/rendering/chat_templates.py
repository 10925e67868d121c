"""Chat templates for models that have none, as the recipe's dataset.chat_template names them.

A template ends each answer with the token at which generation stops, and writes a conversation's beginning in the same
way whatever follows: dataset/rendering/render.py finds the answers by that.
"""

CHATML = """\
{{- bos }}
{%- set system = messages[0]['content'] if messages and messages[0]['role'] == 'system' else '' %}
{%- if tools %}
    {{- '<|im_start|>system\\n' + (system + '\\n\\n' if system else '') }}
    {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
    {%- for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}
    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within ' }}
    {{- '<tool_call></tool_call> XML tags:\\n<tool_call>\\n{"name": <function-name>, "arguments": ' }}
    {{- '<args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif system %}
    {{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message['content'] + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif not (loop.first and message['role'] == 'system') %}
        {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] }}
        {%- for call in message['tool_calls'] or [] %}
            {{- '' if loop.first and not message['content'] else '\\n' }}
            {{- '<tool_call>\\n{"name": ' + call['function']['name'] | tojson }}
            {{- ', "arguments": ' + call['function']['arguments'] | tojson + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""Qwen2.5's and Hermes's, calls and all, without a system message where none is given."""

ALPACA = """\
{%- set system = messages[0]['content'] if messages and messages[0]['role'] == 'system' else
    'Below is an instruction that describes a task. Write a response that appropriately completes the request.' %}
{{- bos + system + '\\n\\n' }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '### Instruction:\\n' + message['content'] + '\\n\\n' }}
    {%- elif message['role'] == 'assistant' %}
        {{- '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}
    {%- elif not (loop.first and message['role'] == 'system') %}
        {{- raise_exception('Alpaca has no words for a message of role ' + message['role'] + ' here') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"""
"""Stanford Alpaca's words. A system message takes the place of the first paragraph."""

PLAIN = """\
{{- bos }}
{%- for message in messages %}
    {{- message['content'] + (eos_token if message['role'] == 'assistant' else '') }}
{%- endfor %}"""
"""Message after message with nothing between: what separates them is in the rows."""

CHAT_TEMPLATES = {"chatml": CHATML, "alpaca": ALPACA, "plain": PLAIN}
END_OF_TURN = {"chatml": "<|im_end|>"}
"""What ends a turn where the end of text does not."""
