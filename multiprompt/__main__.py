from multiprompt.cli.commands import main

main()
